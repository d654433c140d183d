"""The notifier: follows what engines and Temporal workers report, and delivers a notice when an alert begins or ends."""

import contextlib
from dataclasses import dataclass, replace
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError
from temporalio.workflow import ActivityCancellationType

from activities.notices.deliver import NoticeActivities
from activities.notices.sending import RETRY_SECONDS_MAX, ChannelSenders
from policy.alerting.incidents import CHECK_SECONDS, AlertBook, check, with_report
from policy.alerting.outbox import EXPIRE_SECONDS, Outbox
from stoker_wire.alerts import (
    NOTIFIER_TASK_QUEUE,
    NOTIFIER_WORKFLOW_TYPE,
    QUERY_FIRING,
    REPORT_ALERTS,
    ActiveAlert,
    AlertReport,
    Delivery,
    Notice,
)
from workflows import continue_as_new
from workflows.markdown import literal

TRY_SECONDS_MAX = 25.0
"""One try, after which another process repeats it; longer than the timeouts of webhooks and e-mail."""
_SHOWN_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifierState:
    """What a run hands on to the next one. The default is a new notifier."""

    book: AlertBook = AlertBook()
    outboxes: tuple[Outbox, ...] = ()
    deployment: str = ""
    first_retry_seconds: float = 5.0
    """Between the first and the second try of a delivery; doubled with every further one."""
    history_events_max: int | None = None
    """History length at which the workflow continues as new; None: when Temporal suggests it."""


@workflow.defn(name=NOTIFIER_WORKFLOW_TYPE)
class NotifierWorkflow:
    """One per deployment, without an end. It exists where notifications are configured."""

    @workflow.init
    def __init__(self, state: NotifierState) -> None:
        self._state = state
        self._senders = ChannelSenders(
            state.outboxes, self._deliver, now=workflow.time, changed=self._show_details
        )

    @workflow.run
    async def run(self, state: NotifierState) -> None:
        """Continues as new when its history is long or the workers have another build."""
        while not self._should_continue_as_new():
            book, notices = check(self._state.book, workflow.time(), deployment=self._state.deployment)
            self._state = replace(self._state, book=book)
            self._senders.send(notices)
            self._show_details()
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    self._should_continue_as_new,
                    timeout=CHECK_SECONDS,
                    timeout_summary="until the next check",
                )
        await self._senders.stop()
        workflow.continue_as_new(
            replace(self._state, outboxes=tuple(self._senders.outboxes.values())),
            initial_versioning_behavior=continue_as_new.next_build(),
        )

    @workflow.signal(name=REPORT_ALERTS, description="what an engine or a Temporal worker sees")
    def report_alerts(self, report: AlertReport) -> None:
        """Its channels are those of the settings that the process was started with."""
        book = with_report(self._state.book, report)
        self._state = replace(self._state, book=book, deployment=report.deployment)
        self._senders.set_channels(report.channels)

    @workflow.query(name=QUERY_FIRING, description="the open incidents")
    def firing(self) -> list[ActiveAlert]:
        """As last seen."""
        return [each.alert for each in self._state.book.firing]

    def _should_continue_as_new(self) -> bool:
        return continue_as_new.is_long(self._state.history_events_max) or continue_as_new.has_other_build()

    async def _deliver(self, name: str, notices: tuple[Notice, ...]) -> bool:
        try:
            await workflow.execute_activity_method(
                NoticeActivities.deliver_notices,
                Delivery(channel=name, notices=notices),
                task_queue=NOTIFIER_TASK_QUEUE,
                start_to_close_timeout=timedelta(seconds=TRY_SECONDS_MAX),
                schedule_to_close_timeout=timedelta(seconds=EXPIRE_SECONDS),
                retry_policy=RetryPolicy(
                    initial_interval=timedelta(seconds=self._state.first_retry_seconds),
                    backoff_coefficient=2.0,
                    maximum_interval=timedelta(seconds=RETRY_SECONDS_MAX),
                ),
                # A try that is under way ends before the next run repeats it.
                cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                summary=f"{notices[0].alert} {notices[0].state}, to {name}"[:200],
            )
        except ActivityError as error:
            if not self._senders.stopping:
                reason = str(error.cause or error)
                workflow.logger.warning("notice_dropped", extra={"channel": name, "reason": reason})
            return False
        return True

    def _show_details(self) -> None:
        firing = self._state.book.firing
        lines = [f"{len(firing)} alerts fire, {len(self._state.book.processes)} processes report"]
        lines += [
            f"- {literal(each.alert.name)} {literal(each.alert.subject)}: {literal(each.alert.text)}"
            for each in firing[:_SHOWN_MAX]
        ]
        lines += [
            f"- channel {literal(name)}: {len(outbox.queue)} wait, {outbox.delivered} delivered, {outbox.dropped} dropped"
            for name, outbox in self._senders.outboxes.items()
        ]
        workflow.set_current_details("\n".join(lines))
