"""Long requests: a worker with requests in flight is not stopped to save money."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.load.history import LoadHistory, fold
from policy.planning.planner import plan
from policy.state.apply_operation import apply_operation
from policy.state.lifecycle import advance, is_hot
from policy.state.observation import Memory
from policy.state.plan import Activate, CancelDrain, StartDrain, Stop
from policy.state.worker import Goal, Worker
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.states import WorkerState as S
from tests.policy.builders import COLD, NOW, brief, decide, draining, endpoint, see, steady, worker

STEP_SECONDS = 5.0


@dataclass
class OneRequest:
    """Cold workers, and one request that arrives at NOW and runs for `seconds`."""

    config: EndpointConfig
    seconds: float
    workers: dict[str, Worker]
    load: LoadHistory = field(default_factory=lambda: steady(0, last=NOW - 10_000))
    memory: Memory | None = None
    now: float = NOW
    on: str = ""
    began_at: float = 0.0
    ended_at: float | None = None
    starts: int = 0
    busy_at: float = NOW
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seen = see(config=self.config, offers=())

    def live(self, seconds: float) -> None:
        for number in range(1, int(seconds / STEP_SECONDS)):
            self.now = NOW + number * STEP_SECONDS
            self._serve()
            self._report(number)
            self._plan()
            if self.ended_at is not None and not any(is_hot(one) for one in self.workers.values()):
                return

    def _serve(self) -> None:
        for name, one in self.workers.items():
            if one.state is S.STARTING and self.now - one.since >= 20:
                self.workers[name] = advance(one, S.READY, self.now)
            elif one.state is S.STOPPING:
                self.workers[name] = advance(one, S.INACTIVE, self.now)
        if self.ended_at is not None:
            return
        if self.on and self.now - self.began_at >= self.seconds:
            self.ended_at, self.busy_at, self.on = self.now, self.now, ""
        elif not self.on:
            free = (n for n, one in self.workers.items() if is_hot(one) and one.drain is None)
            self.on = next(free, "")
            if self.on:
                self.began_at, self.starts = self.now, self.starts + 1

    def _report(self, number: int) -> None:
        waits = self.ended_at is None and not self.on
        if self.on:
            self.busy_at = self.now
        self.load = fold(
            self.load,
            engine_id="e1",
            sequence=number + 1,
            at=self.now,
            window_s=STEP_SECONDS,
            load=50.0 if number == 1 else 0.0,
            requests=number == 1,
            queued_load=50.0 if waits else 0.0,
            queued_requests=int(waits),
            last_request_at=self.busy_at,
        )
        for name, one in self.workers.items():
            if is_hot(one):
                holds = name == self.on
                one = one.replace(reported_at=self.now, in_flight=int(holds), load=50.0 if holds else 0.0)  # noqa: PLW2901
                if one.drain is not None and one.drain.seen_at is None:
                    one = one.replace(drain=replace(one.drain, seen_at=self.now))  # noqa: PLW2901
                self.workers[name] = one

    def _plan(self) -> None:
        made = plan(
            replace(
                self.seen,
                workers=tuple(self.workers.values()),
                now=self.now,
                load=self.load,
                memory=self.memory,
                listed_at=self.now - 1,
                listed_whole_at=self.now - 1,
            )
        )
        self.memory = made.memory
        for operation in made.operations:
            if not isinstance(operation, Activate | Stop | StartDrain | CancelDrain):
                continue
            name = operation.launch_id
            self.log.append(f"{self.now - NOW:.0f} s: {operation.op} {operation.reason}")
            if isinstance(operation, Stop) and name == self.on:
                self.on = ""  # lost with its worker, and retried
            self.workers[name] = apply_operation(self.workers[name], operation, self.now).replace(
                operation=""
            )


@settings(max_examples=15, deadline=None)
@given(
    seconds=st.sampled_from([1.0, 14.0, 25.0, 90.0, 200.0, 600.0, 1500.0]) | st.floats(1, 1500),
    timeout=st.none() | st.sampled_from([0.0, 5.0, 15.0, 60.0]) | st.floats(1, 300),
    drain=st.sampled_from([0.0, 5.0, 20.0, 600.0]) | st.floats(0, 700),
    count=st.integers(1, 3),
)
def test_a_long_request_is_not_restarted_in_a_loop(seconds, timeout, drain, count):
    config = endpoint(
        min_workers=count, max_workers=count, inactivity_timeout=timeout, drain_seconds_max=drain
    )
    cold = {f"w{number}": worker(f"w{number}", COLD) for number in range(count)}
    world = OneRequest(config, seconds, cold)
    world.live(3600)
    assert world.starts == 1, "\n".join(world.log)
    assert world.ended_at is not None
    assert not any(is_hot(one) for one in world.workers.values()), "it goes cold in the end"


def test_inactivity_counts_from_the_end_of_the_last_request():
    config = endpoint(min_workers=1, max_workers=1, inactivity_timeout=15, drain_seconds_max=20)
    world = OneRequest(config, 90.0, {"w": worker("w", COLD)})
    world.live(300)
    stopped = [line for line in world.log if "stop" in line]
    assert world.starts == 1
    # The worker starts in 25 s, the request runs 90 s, and after 15 s idle the worker drains.
    assert world.ended_at == NOW + 115
    assert [float(line.split()[0]) >= 130 for line in stopped] == [True] * len(stopped)
    assert stopped


def test_a_running_request_prevents_the_inactivity_timeout():
    busy = worker("w", in_flight=1, load=5.0)
    idle = see(busy, config=endpoint(inactivity_timeout=15), load=steady(0, last=NOW - 3000))
    assert brief(decide(idle)) == []
    assert brief(decide(replace(idle, workers=(busy.replace(in_flight=0, load=0.0),)))) == ["drain w to stop"]


def test_a_drain_to_save_money_waits_for_its_requests_with_a_reason():
    late = draining("w", in_flight=1, load=5.0, began=NOW - 30, deadline=NOW - 10)
    late = late.replace(drain=replace(late.drain, until_idle=True))
    decided = decide(see(late))
    assert brief(decided) == []
    assert "drains for 30 s and stops when its requests end; 1 in flight" in decided.waits[0].reason
    mute = late.replace(suspect_since=NOW - 60)
    assert brief(decide(see(mute))) == ["stop w"]


@pytest.mark.parametrize("bound", [{"endpoint_state": "stopped"}, {"dollars_per_hour_max": 0.1}])
def test_a_mandatory_drain_has_a_deadline(bound):
    late = draining("w", in_flight=1, load=5.0, began=NOW - 900, deadline=NOW - 300)
    late = late.replace(drain=replace(late.drain, until_idle=True))
    (operation,) = decide(see(late, config=endpoint(drain_seconds_max=20, **bound))).operations
    assert (operation.op, operation.drain.until_idle) == ("drain", False)
    assert (operation.drain.deadline, operation.drain.goal) == (NOW + 20, Goal.STOP)
