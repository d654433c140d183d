"""The phases of a slow decision, by the timestamps in the Temporal history."""

from dataclasses import dataclass

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHistory

from benchmarks.engine.floor import FLOOR_SIGNAL
from benchmarks.scale.events import Event
from stoker_wire.control import REPORT_METRICS, workflow_id

SHOWN = 12
"""Number of slowest events to print."""
_SIGNALS = frozenset({REPORT_METRICS, FLOOR_SIGNAL})


@dataclass(frozen=True, slots=True)
class EventPhases:
    """The phases of one event, seconds."""

    kind: str
    endpoint: str
    began: float
    """Seconds after the first event of the run."""
    total: float
    parts: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        """One row of the table."""
        words = ", ".join(f"{name} {seconds * 1000:.0f}" for name, seconds in self.parts)
        return (
            f"{self.kind} of {self.endpoint} at {self.began:.0f} s took {self.total * 1000:.0f} ms: {words}"
        )


async def slowest(client: Client, events: list[Event]) -> list[EventPhases]:
    """The slowest events with a decision, slowest first."""
    answered = [(event.answered_at - event.at, event) for event in events if event.answered_at is not None]
    answered.sort(key=lambda pair: -pair[0])
    first = min((event.at for event in events), default=0.0)
    return [await phases(client, event, first) for _, event in answered[:SHOWN]]


async def phases(client: Client, event: Event, first: float) -> EventPhases:
    """The phases of one event with a decision."""
    assert event.answered_at is not None
    history = await client.get_workflow_handle(workflow_id(event.endpoint)).fetch_history()
    parts = parts_of(history, event.at, event.answered_at, "market called")
    return EventPhases(
        event.kind, event.endpoint, event.at - first, event.answered_at - event.at, tuple(parts)
    )


def parts_of(history: WorkflowHistory, began: float, ended: float, end: str) -> list[tuple[str, float]]:
    """Seconds from one mark in the history to the next, from `began` to `ended`, whose name is `end`."""
    marks: list[tuple[str, float]] = []
    for one in history.events:
        at = one.event_time.ToNanoseconds() / 1e9
        if not began <= at <= ended:
            continue
        match one.event_type:
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
                if one.workflow_execution_signaled_event_attributes.signal_name in _SIGNALS:
                    marks.append(("signal", at))
            case EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED:
                marks.append(("task begins", at))
            case EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
                marks.append(("task ends", at))
            case EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT:
                marks.append(("task timed out", at))
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                name = one.activity_task_scheduled_event_attributes.activity_type.name
                marks.append((f"{name} is asked for", at))
            case EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
                marks.append(("activity begins", at))
            case _:
                pass
    marks.sort(key=lambda mark: mark[1])
    marks.append((end, ended))
    before = (began, *(at for _, at in marks))
    return [(name, at - last) for (name, at), last in zip(marks, before, strict=False)]
