"""The phases of a slow decision, by the timestamps in the Temporal history."""

from dataclasses import dataclass

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from benchmarks.scale.events import Event
from stoker_wire.control import REPORT_METRICS, workflow_id

SHOWN = 12
"""Number of slowest events to print."""
_ANSWERED_SLACK_SECONDS = 0.5


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
    return [await _of(client, event, first) for _, event in answered[:SHOWN]]


async def _of(client: Client, event: Event, first: float) -> EventPhases:
    assert event.answered_at is not None
    until = event.answered_at + _ANSWERED_SLACK_SECONDS
    marks: list[tuple[str, float]] = []
    history = await client.get_workflow_handle(workflow_id(event.endpoint)).fetch_history()
    for one in history.events:
        at = one.event_time.ToNanoseconds() / 1e9
        if not event.at <= at <= until:
            continue
        match one.event_type:
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
                if one.workflow_execution_signaled_event_attributes.signal_name == REPORT_METRICS:
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
    marks.append(("market called", event.answered_at))
    marks.sort(key=lambda mark: mark[1])
    parts, last = [], event.at
    for name, at in marks:
        if at > event.answered_at:
            break
        parts.append((name, at - last))
        last = at
    return EventPhases(
        event.kind, event.endpoint, event.at - first, event.answered_at - event.at, tuple(parts)
    )
