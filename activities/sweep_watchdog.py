"""Settings of the sweep, which destroys instances without an endpoint, and the task that keeps it running."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from activities.progress import Stall, progress_of
from stoker_wire.control import SWEEP_ID, SWEEP_WORKFLOW_TYPE, TASK_QUEUE

log = structlog.get_logger(__name__)

ENSURE_SECONDS = 60.0
"""Interval between two checks whether the sweep runs."""
SIGNAL_CONFIGURE = "configure"
_CALL = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """Settings and carried-over state of the sweep."""

    every_seconds: float = 300.0
    """Interval of the sweep. Doubled: instances without an endpoint are billed for up to 300 s longer."""
    young_seconds: float = 600.0
    """Younger instances are ignored: their endpoint may just be starting."""
    stuck_seconds: float = 1800.0
    """After this time without workflow progress an endpoint loses its instances. Doubled: they are billed longer."""
    stuck_end_seconds: float = 86_400.0
    """After this time without progress a workflow is terminated. Until then a repaired build can continue it."""
    rounds: int = 0
    """Number of sweeps in earlier runs."""
    destroyed: int = 0
    destroyed_at: float = 0.0
    """When the last of them was, Unix seconds."""
    stalled: "tuple[StalledEndpoint, ...]" = ()
    """Endpoints without progress at the last sweep."""
    looked_at: float = 0.0
    """When the last sweep began, Unix seconds; 0: none did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StalledEndpoint:
    """An endpoint whose workflow completes no workflow task."""

    name: str
    run_id: str
    since: float
    """First sweep that found it stalled, Unix seconds. No sweep runs without a Temporal worker."""
    fault: str = ""


async def ensure_sweep(client: Client, spec: SweepSpec | None = None, *, configure: bool = False) -> None:
    """Start the sweep unless it runs.

    Args:
        configure: a running sweep takes over these settings.

    Raises:
        RPCError: Temporal does not answer.
    """
    await _start(client, spec or SweepSpec(), WorkflowIDConflictPolicy.USE_EXISTING, configure=configure)


async def _start(
    client: Client, spec: SweepSpec, policy: WorkflowIDConflictPolicy, *, configure: bool = False
) -> None:
    more: dict[str, Any] = (
        {"start_signal": SIGNAL_CONFIGURE, "start_signal_args": [spec]} if configure else {}
    )
    try:
        await client.start_workflow(
            SWEEP_WORKFLOW_TYPE,
            spec,
            id=SWEEP_ID,
            task_queue=TASK_QUEUE,
            id_conflict_policy=policy,
            static_summary="destroys instances whose endpoint does not exist any more, or makes no progress",
            rpc_timeout=_CALL,
            **more,
        )
    except WorkflowAlreadyStartedError:
        return


class SweepWatchdog:
    """Runs in every Temporal worker and engine: restarts an ended sweep and replaces a stalled one."""

    def __init__(
        self, client: Client, spec: SweepSpec | None = None, *, every_seconds: float = ENSURE_SECONDS
    ) -> None:
        self._client = client
        self._spec = spec or SweepSpec()
        self._every_seconds = every_seconds
        self._stall = Stall()

    async def run(self) -> None:
        """Check until cancelled. A failed check is repeated at the next interval."""
        while True:
            try:
                await self.check()
            except (RPCError, RuntimeError, TimeoutError) as fault:
                log.warning("sweep_not_ensured", reason=f"{type(fault).__name__}: {fault}"[:200])
            await asyncio.sleep(self._every_seconds)

    async def check(self) -> None:
        """Check once.

        Raises:
            RPCError: Temporal does not answer.
        """
        found = await progress_of(self._client, SWEEP_ID)
        stalled = self._stall.seconds(found, asyncio.get_running_loop().time())
        if found.running and not (found.fault and stalled >= self._spec.stuck_seconds):
            return
        if found.running:
            log.error("sweep_replaced", run_id=found.run_id, reason=found.fault)
            await _start(self._client, self._spec, WorkflowIDConflictPolicy.TERMINATE_EXISTING)
        else:
            log.info("sweep_started")
            await ensure_sweep(self._client, self._spec)
