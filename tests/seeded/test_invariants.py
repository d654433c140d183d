"""Tests of the invariants and of the stand-in for Temporal's client."""

from types import SimpleNamespace
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus

from stoker_wire.messages import MEMO_KEY
from tests.seeded.invariants import Invariants
from tests.seeded.temporal.client import Client

LAUNCH = "0123456789ab"


class _World:
    """A ready worker, with the requests and tickets that the test gives it."""

    def __init__(self) -> None:
        self.box = SimpleNamespace(
            ready=True, mute=False, ready_seconds=60.0, launch_id=LAUNCH, jobs=dict[int, Any]()
        )
        self.boxes = {1001: self.box}
        self.tickets: dict[str, dict[int, float]] = {LAUNCH: {}}
        self.violations: list[str] = []

    def now(self) -> float:
        return 1000.0

    def violated(self, what: str) -> None:
        self.violations.append(what)


@pytest.fixture
def world() -> _World:
    return _World()


@pytest.fixture
def asked(world: _World) -> Any:
    invariants = Invariants(world)  # type: ignore[arg-type]
    invariants.reasons[LAUNCH] = dict.fromkeys(("destroy", "stop", "reboot"), (990.0, "outdated"))
    machine: Any = SimpleNamespace(id=1001, label=f"stoker:llm:{LAUNCH}")
    return lambda what: invariants.asked(what, machine)


def test_a_destroy_of_a_worker_with_requests_is_a_violation(world: _World, asked: Any) -> None:
    world.box.jobs[7] = object()
    asked("destroy")
    (violation,) = world.violations
    assert "1 requests and 0 tickets" in violation


def test_a_repeated_destroy_is_judged_by_the_requests_since_the_first_one(world: _World, asked: Any) -> None:
    world.box.ready_seconds = 2.0  # its first report has not reached the workflow
    world.box.jobs[7] = object()
    world.tickets[LAUNCH][8] = 1060.0
    asked("destroy")
    world.box.ready_seconds = 6.0
    world.box.jobs[8] = world.tickets[LAUNCH].pop(8)
    asked("destroy")
    assert not world.violations
    world.box.jobs[9] = object()
    asked("destroy")
    (violation,) = world.violations
    assert "1 requests and 0 tickets" in violation


@pytest.mark.parametrize("what", ["stop", "reboot"])
def test_a_repeated_stop_or_reboot_is_judged_by_all_requests(what: str, world: _World, asked: Any) -> None:
    world.box.ready_seconds = 2.0
    world.box.jobs[7] = object()
    asked(what)
    world.box.ready_seconds = 6.0
    asked(what)
    assert len(world.violations) == 1


class _Server:
    """One execution per status, all visible."""

    def __init__(self) -> None:
        self.weather = SimpleNamespace(visibility_seconds=0.0)
        self.executions = {
            status.name: SimpleNamespace(
                id=status.name, run=SimpleNamespace(id="run"), shown=[(0.0, {MEMO_KEY: {}}, status)]
            )
            for status in WorkflowExecutionStatus
        }

    def now(self) -> float:
        return 1000.0

    async def rpc(self) -> Any:
        return lambda: None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("ExecutionStatus = 'Running'", {"RUNNING"}),
        ("ExecutionStatus = 'Terminated' OR ExecutionStatus = 'TimedOut'", {"TERMINATED", "TIMED_OUT"}),
    ],
)
async def test_a_list_of_workflows_has_only_the_statuses_of_its_query(query: str, expected: set[str]) -> None:
    client = Client(_Server())  # type: ignore[arg-type]
    assert {seen.id async for seen in client.list_workflows(query)} == expected
