"""Reports of a process to the notifier's workflow, which the first report starts."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from activities.progress import Stall, progress_of
from stoker_wire.alerts import (
    ALERTS_MAX,
    NOTIFIER_ID,
    NOTIFIER_TASK_QUEUE,
    NOTIFIER_WORKFLOW_TYPE,
    REPORT_ALERTS,
    REPORT_SECONDS,
    ActiveAlert,
    AlertReport,
    NoticeChannel,
    Role,
)

log = structlog.get_logger(__name__)

STUCK_SECONDS = 600.0
"""A notifier without progress for this time is replaced. Its open incidents are then told again."""
_CALL = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticePlan:
    """The channels of notices, without addresses and secrets."""

    deployment: str
    """Name of the deployment in notices."""
    channels: tuple[NoticeChannel, ...]


class AlertReporter:
    """Sends one process's reports: at a change, and at least twice a minute."""

    def __init__(self, client: Client, plan: NoticePlan, *, role: Role, place: str) -> None:
        self._client = client
        self._plan = plan
        self._role: Role = role
        self._place = place
        self._reported: frozenset[tuple[str, str]] = frozenset()
        self._reported_at: float | None = None
        """In loop time; None: not yet."""
        self._stall = Stall()

    def __repr__(self) -> str:
        return f"<AlertReporter {self._role} {self._place}>"

    async def run(self, active: Callable[[], Sequence[ActiveAlert]]) -> None:
        """Report the active alerts and that the process lives, until cancelled."""
        while True:
            await self.report(active())
            await asyncio.sleep(REPORT_SECONDS / 3)

    async def report(self, alerts: Sequence[ActiveAlert]) -> None:
        """Send the active alerts if they differ from the reported ones or a report is due.

        If Temporal does not answer, the next call tries again.
        """
        now = asyncio.get_running_loop().time()
        names = frozenset((each.name, each.subject) for each in alerts)
        is_due = self._reported_at is None or now - self._reported_at >= REPORT_SECONDS * 0.9
        if not is_due and names == self._reported:
            return
        try:
            replaces = is_due and await self._is_stuck(now)
            await self._send(alerts, replaces=replaces)
        except (RPCError, RuntimeError, TimeoutError, OSError) as error:
            log.warning("alerts_not_reported", reason=f"{type(error).__name__}: {error}"[:200])
            return
        self._reported, self._reported_at = names, now

    async def stop(self) -> None:
        """Tell the notifier that this process stops on purpose."""
        report = AlertReport(
            role=self._role,
            place=self._place,
            stopping=True,
            deployment=self._plan.deployment,
            channels=self._plan.channels,
        )
        try:
            await self._client.get_workflow_handle(NOTIFIER_ID).signal(
                REPORT_ALERTS, report, rpc_timeout=_CALL
            )
        except (RPCError, RuntimeError, TimeoutError, OSError) as error:
            log.warning("stop_not_reported", reason=f"{type(error).__name__}: {error}"[:200])

    async def _send(self, alerts: Sequence[ActiveAlert], *, replaces: bool) -> None:
        chosen = sorted(alerts, key=lambda each: (each.name, each.subject))[:ALERTS_MAX]
        report = AlertReport(
            role=self._role,
            place=self._place,
            alerts=tuple(chosen),
            deployment=self._plan.deployment,
            channels=self._plan.channels,
        )
        await self._client.start_workflow(
            NOTIFIER_WORKFLOW_TYPE,
            {},  # a new notifier's state
            id=NOTIFIER_ID,
            task_queue=NOTIFIER_TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING
            if replaces
            else WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal=REPORT_ALERTS,
            start_signal_args=[report],
            static_summary="tells people when an alert begins or ends",
            rpc_timeout=_CALL,
        )

    async def _is_stuck(self, now: float) -> bool:
        found = await progress_of(self._client, NOTIFIER_ID)
        stuck = self._stall.seconds(found, now) >= STUCK_SECONDS
        if stuck:
            log.error("notifier_replaced", run_id=found.run_id, reason=found.fault)
        return stuck


async def end_notifier(client: Client) -> None:
    """End the notifier of a deployment whose settings have no channel any more."""
    try:
        await client.get_workflow_handle(NOTIFIER_ID).terminate(
            reason="the settings have no channel for notices", rpc_timeout=_CALL
        )
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            log.warning("notifier_not_ended", reason=str(error)[:200])
    else:
        log.info("notifier_ended", reason="the settings have no channel for notices")
