"""Random signals and updates to a live endpoint workflow: it refuses or uses them, and continues."""

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.client import WorkflowExecutionStatus, WorkflowHistory, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from stoker_wire import control
from stoker_wire.endpoint import EndpointConfig, EndpointPatch
from stoker_wire.http.openapi import Operation, Reply, document
from stoker_wire.messages import MetricsBatch
from stoker_wire.security.client_key import KeyEdit
from stoker_wire.workergroup import Workergroup
from tests.fuzz import size
from tests.fuzz.values import Schemas, Text, anything
from tests.workflows.world import World, group, replayer

SIGNALS = [
    control.REPORT_METRICS, control.UPDATE_CONFIG, control.SET_WORKERGROUP, control.REMOVE_WORKERGROUP,
    control.UPDATE_WORKERS, "no_such_signal", "status", "__temporal_odd", "",
]  # fmt: skip
UPDATES = [
    control.UPDATE_CONFIG, control.SET_WORKERGROUP, control.REMOVE_WORKERGROUP, control.ROTATE_KEY,
    control.UPDATE_WORKERS, control.CANCEL_UPDATE, control.ADVISE, control.EDIT_KEYS, "no_such_update",
]  # fmt: skip
KNOWN = set(SIGNALS[:5])

_MODELS = {"metrics": MetricsBatch, "patch": EndpointPatch, "group": Workergroup, "keys": KeyEdit}
_DOCUMENT = document(
    "the workflow's messages", "0", "", {("POST", f"/{name}"): Operation(body=model, replies={200: Reply()}) for name, model in _MODELS.items()}, security={}
)  # fmt: skip
_SCHEMAS = Schemas(
    _DOCUMENT,
    # Bounds that keep the number of workers small, because a thousand take long.
    hints={"engine_id": ["e1", "e2"], "sequence": [1, 2, 5, 100], "sent_at": [0, 1e9, 1e12, -5.0], "id": [1, 2], "template_hash": ["tmpl"]},
    only={"max_workers": [0, 1, 3], "min_workers": [0, 1], "cold_workers": [0, 1], "test_workers": [0, 1], "history_events_max": [None]},
)  # fmt: skip


def payload(name: str) -> st.SearchStrategy[Any]:
    """A message's payload: fitting, almost fitting, or anything."""
    schema = _DOCUMENT["components"]["schemas"][_MODELS[name].__name__]
    return st.one_of(_SCHEMAS.fitting(schema), _SCHEMAS.almost(schema), anything)


PAYLOADS = {
    control.REPORT_METRICS: payload("metrics"),
    control.UPDATE_CONFIG: payload("patch"),
    control.SET_WORKERGROUP: payload("group"),
    control.EDIT_KEYS: payload("keys"),
}
IDS = st.sampled_from([1, 2, 9, 0, -1, 2**63, True, "1", None, 1.0]) | anything


@st.composite
def messages(draw: st.DrawFn) -> list[tuple[str, str, list[Any]]]:
    """A random sequence of signals, updates and time steps."""
    made = []
    for _ in range(draw(st.integers(25, 40))):
        kind = draw(st.sampled_from(["signal", "signal", "signal", "update", "pause"]))
        name = draw(st.sampled_from(SIGNALS if kind == "signal" else UPDATES))
        sent = draw(PAYLOADS.get(name, IDS))
        count = draw(st.sampled_from([1, 1, 1, 1, 0, 2]))
        made.append((kind, name, [_sendable(sent)] * count))
    return made


def _sendable(value: Any) -> Any:
    """The value as a Temporal client can send it: JSON texts without a Python value become the nearest value."""
    if isinstance(value, Text):
        return {b"NaN": float("nan"), b"Infinity": float("inf"), b"-Infinity": float("-inf")}.get(
            value.text, "\x00"
        )
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_sendable(str(key)): _sendable(inner) for key, inner in value.items()}
    return [_sendable(inner) for inner in value] if isinstance(value, list) else value


def storms(count: int) -> list[list[tuple[str, str, list[Any]]]]:
    """The number of sequences; they are the same every time unless in the long size."""
    made: list[list[tuple[str, str, list[Any]]]] = []

    @settings(max_examples=count, derandomize=not size.LONG, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck), verbosity=Verbosity.quiet)  # fmt: skip
    @given(messages())
    def draw(storm: list[tuple[str, str, list[Any]]]) -> None:
        made.append(storm)

    draw()
    return made[-count:]


async def send(world: World, kind: str, name: str, sent: list[Any]) -> None:
    """Sends one message; a refusal by Temporal or a validator is an answer."""
    assert world.handle is not None
    handle = world.client.get_workflow_handle(world.handle.id)
    if kind == "pause":
        await world.live(5, step=5)
    elif kind == "signal":
        if name:
            await handle.signal(name, args=sent)
    else:
        try:
            await handle.execute_update(name, args=sent)
        except WorkflowUpdateFailedError as fault:
            assert isinstance(fault.cause, ApplicationError), fault.cause
            assert fault.cause.message
            assert "Traceback" not in fault.cause.message


def failures(history: WorkflowHistory) -> list[str]:
    """Failed workflow tasks, which show a fault in workflow code.

    A signal that meets continue-as-new is not a fault: the server repeats the task (`UNHANDLED_COMMAND`).
    """
    return [
        str(event.workflow_task_failed_event_attributes.failure.message)
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
        and event.workflow_task_failed_event_attributes.cause
        != WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND
    ]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(40 if size.LONG else 2))
async def test_a_storm_of_messages_neither_fails_nor_stops_the_workflow(a_world: Any, number: int) -> None:
    storm = storms(number + 1)[number]
    async with a_world() as world:
        # Histories of a hundred events, so that the sequence goes through continue-as-new.
        config = EndpointConfig(min_load=0, min_workers=0, max_workers=2)
        await world.start(config, [group()], history_events_max=100)
        for position, (kind, name, sent) in enumerate(storm):
            try:
                await send(world, kind, name, sent)
            except Exception as fault:
                fault.add_note(f"storm {number}, message {position}: {kind} {name} {sent!r:.2000}")
                raise
        await world.live(60, step=20)
        handle = world.client.get_workflow_handle(world.handle.id)
        assert (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
        histories = await world.histories()
        assert [fault for history in histories for fault in failures(history)] == []
        config_after = await handle.execute_update(control.UPDATE_CONFIG, {"max_workers": 2})
        assert config_after["max_workers"] == 2, "and it takes good messages still"
        for history in await world.histories():
            await replayer().replay_workflow(history)


@pytest.mark.parametrize("signal", [control.REPORT_METRICS, control.UPDATE_CONFIG, control.SET_WORKERGROUP])
async def test_what_is_refused_is_in_the_decision_log(a_world: Any, signal: str) -> None:
    async with a_world() as world:
        await world.start(EndpointConfig(min_load=0, min_workers=0, max_workers=2), [group()])
        odd = [
            None,
            3,
            "x" * 200_000,
            [],
            {"sequence": float("nan")},
            {"\x00": {"a": [1e308, -1]}},
            {"workers": "all"},
        ]
        for sent in odd:
            await world.handle.signal(signal, sent)
            line = (await world.handle.query("decisions"))[-1]
            assert line["reason"].startswith("refused: "), (sent, line)
            assert line["subject"] == signal
            assert len(line["reason"]) <= 400


@pytest.mark.parametrize("signal", [*sorted(KNOWN), control.DELETE, "no_such_signal"])
async def test_a_signal_with_more_values_than_it_takes_does_not_stop_the_workflow(
    a_world: Any, signal: str
) -> None:
    """A handler that raises fails its workflow task again and again, and the endpoint makes no progress."""
    async with a_world() as world:
        await world.start(EndpointConfig(min_load=0, min_workers=0, max_workers=2), [group()])
        await world.handle.signal(signal, args=[1, 2])
        line = (await world.handle.query("decisions"))[-1]
        assert (line["subject"], line["reason"][:9]) == (signal, "refused: ")
        assert not failures(await world.handle.fetch_history())
