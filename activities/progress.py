"""Whether a workflow makes progress, by Temporal's records: the workflow itself may be unable to answer."""

import time
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

PENDING_SECONDS_MAX = 120.0
"""Workers take workflow tasks within seconds. An older task has no worker that can take it."""
EVENTS_READ_MAX = 200
"""Events read from the end of the history. If none completed a task, earlier checks decide."""
_CALL = timedelta(seconds=10)
_REASON_CHARS_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress of one workflow."""

    running: bool
    run_id: str = ""
    fault: str = ""
    """Why its workflow task does not complete; empty: no fault."""
    completed_at: float = 0.0
    """When it last completed a workflow task, Unix seconds; 0: not within `EVENTS_READ_MAX` events, or not read."""


async def progress_of(client: Client, workflow_id: str) -> Progress:
    """Read the progress of a workflow: one call, and a second one if a workflow task fails or waits.

    Raises:
        RPCError: Temporal does not answer.
    """
    try:
        found = await client.get_workflow_handle(workflow_id).describe(rpc_timeout=_CALL)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return Progress(running=False)
        raise
    if found.status is not WorkflowExecutionStatus.RUNNING:
        return Progress(running=False, run_id=found.run_id)
    raw = found.raw_description
    if not raw.HasField("pending_workflow_task"):
        return Progress(running=True, run_id=found.run_id)
    task = raw.pending_workflow_task
    waits = time.time() - _unix(task.scheduled_time) if task.attempt <= 1 else 0.0
    if task.attempt <= 1 and waits < PENDING_SECONDS_MAX:
        return Progress(running=True, run_id=found.run_id)
    newest = await _newest(client, workflow_id, found.run_id)
    fault = _fault(newest) or (
        f"attempt {task.attempt} of its workflow task is in progress"
        if task.attempt > 1
        else f"no worker takes its workflow task, which waits for {waits:.0f} s"
    )
    return Progress(running=True, run_id=found.run_id, fault=fault, completed_at=_completed_at(newest))


async def _newest(client: Client, workflow_id: str, run_id: str) -> list[HistoryEvent]:
    """The last events of its history, newest first; empty if they cannot be read."""
    asked = GetWorkflowExecutionHistoryReverseRequest(
        namespace=client.namespace,
        execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
        maximum_page_size=EVENTS_READ_MAX,
    )
    try:
        answer = await client.workflow_service.get_workflow_execution_history_reverse(asked, timeout=_CALL)
    except RPCError:
        return []
    return list(answer.history.events)


def _fault(newest: list[HistoryEvent]) -> str:
    """Why the last workflow task ended without a result."""
    for event in newest:
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
            message = event.workflow_task_failed_event_attributes.failure.message
            return f"its workflow task fails: {message}"[:_REASON_CHARS_MAX]
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT:
            return "its workflow task times out"
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            return ""
    return ""


def _completed_at(newest: list[HistoryEvent]) -> float:
    for event in newest:
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            return _unix(event.event_time)
    return 0.0


def _unix(at: Timestamp) -> float:
    return at.seconds + at.nanos / 1e9


class Stall:
    """For how long one workflow has been without progress, from repeated looks at it."""

    def __init__(self) -> None:
        self._since: tuple[str, float] | None = None
        """Run id of the stalled run and since when."""

    def seconds(self, found: Progress, now: float) -> float:
        """Time since the first look that found this run stalled; 0: it makes progress."""
        if not found.running or not found.fault:
            self._since = None
            return 0.0
        if self._since is None or self._since[0] != found.run_id:
            self._since = (found.run_id, now)
        return now - self._since[1]
