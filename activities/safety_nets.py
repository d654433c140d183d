"""The sweep's settings, and how it is kept running: it releases machines whose endpoint is gone."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from activities.progress import Progress, progress_of
from stoker_wire.control import SWEEP_ID, SWEEP_WORKFLOW_TYPE, TASK_QUEUE

log = structlog.get_logger(__name__)

ENSURE_SECONDS = 60.0
"""Between two looks whether the sweep runs."""
SIGNAL_CONFIGURE = "configure"
_CALL = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """How often the sweep looks, and what it leaves alone."""

    every_seconds: float = 300.0
    """Between two sweeps. Doubled: machines without an endpoint are paid for up to 300 s longer."""
    young_seconds: float = 600.0
    """An instance younger than this is left alone: its endpoint may just be starting."""
    stuck_seconds: float = 1800.0
    """An endpoint whose workflow made no progress for this long loses its machines. Doubled: they are paid for longer."""
    stuck_end_seconds: float = 86_400.0
    """A workflow that made no progress for this long is terminated. Until then a repaired build can carry it on."""
    rounds: int = 0
    """Sweeps made so far by earlier runs."""
    destroyed: int = 0
    stalled: "tuple[StalledEndpoint, ...]" = ()
    """Endpoints without progress at the last look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StalledEndpoint:
    """An endpoint whose workflow completes no workflow task."""

    name: str
    run_id: str
    since: float
    """The first look at which it was so, Unix s. Time without a Temporal worker does not count: there was no look."""
    fault: str = ""


async def ensure_sweep(client: Client, spec: SweepSpec | None = None, *, configure: bool = False) -> None:
    """Starts the sweep unless it runs; `configure`: one that runs takes over these settings.

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


class SafetyNets:
    """Runs beside every Temporal worker and every engine: a sweep that was ended is started again within
    `every_seconds`, and one that makes no progress is replaced."""

    def __init__(
        self, client: Client, spec: SweepSpec | None = None, *, every_seconds: float = ENSURE_SECONDS
    ) -> None:
        self._client = client
        self._spec = spec or SweepSpec()
        self._every_seconds = every_seconds
        self._stalled_for: tuple[str, float] | None = None
        """The sweep's run that makes no progress, and since when, in the loop's time."""

    async def run(self) -> None:
        """Looks until it is cancelled. A look that fails is made again at the next interval."""
        while True:
            try:
                await self.look()
            except (RPCError, RuntimeError, TimeoutError) as fault:
                log.warning("sweep_not_ensured", reason=f"{type(fault).__name__}: {fault}"[:200])
            await asyncio.sleep(self._every_seconds)

    async def look(self) -> None:
        """One look.

        Raises:
            RPCError: Temporal does not answer.
        """
        found = await progress_of(self._client, SWEEP_ID)
        if found.running and not self._is_stuck(found):
            return
        if found.running:
            log.error("sweep_replaced", run_id=found.run_id, reason=found.fault)
            await _start(self._client, self._spec, WorkflowIDConflictPolicy.TERMINATE_EXISTING)
        else:
            log.info("sweep_started")
            await ensure_sweep(self._client, self._spec)

    def _is_stuck(self, found: Progress) -> bool:
        now = asyncio.get_running_loop().time()
        if not found.fault:
            self._stalled_for = None
            return False
        if self._stalled_for is None or self._stalled_for[0] != found.run_id:
            self._stalled_for = (found.run_id, now)
        return now - self._stalled_for[1] >= self._spec.stuck_seconds
