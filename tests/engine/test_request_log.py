"""The request log: one line per request, with its outcome."""

import asyncio
import json
from pathlib import Path

import pytest

from engine.request_log import PENDING_MAX, Outcome, RequestLog
from engine.routing.requests.request_queue import QueuedRequest
from engine.settings import Limits, RequestLogSettings
from simulation.trace import read_trace
from tests.engine.fake_endpoint_workflow import until
from tests.engine.routing.test_dispatcher import World


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def queued(number: int = 1, *, at: float = 100.0) -> QueuedRequest:
    return QueuedRequest(number, 10.0, at, 60.0)


class Recorded:
    """A dispatcher's world and the requests that ended in it."""

    def __init__(self, **changes: object) -> None:
        self.world = World(**changes)

    @property
    def ended(self) -> list[tuple[int, str, float | None, float | None]]:
        return [(r.request_idx, outcome.value, r.waited_s, r.took_s) for r, outcome in self.world.ended]

    def later(self, seconds: float) -> None:
        self.world.now += seconds

    def sweep(self) -> None:
        self.world.dispatcher.sweep(self.world.endpoint, self.world.now)

    def finish(self, request_idx: int, *, success: bool = True) -> None:
        world = self.world
        world.dispatcher.request_finished(
            world.endpoint, world.worker("a"), request_idx, success=success, now=world.now
        )


def test_a_request_is_recorded_once_with_wait_and_duration() -> None:
    recorded = Recorded()
    request = recorded.world.ask()
    recorded.later(3)
    recorded.world.ready("a")
    recorded.later(2)
    recorded.finish(request.request_idx)
    recorded.sweep()
    assert recorded.ended == []  # its client may still retry
    recorded.later(6)
    recorded.sweep()
    recorded.sweep()
    assert recorded.ended == [(request.request_idx, "done", 3.0, 2.0)]


def test_a_rerouted_request_is_one_line_with_its_first_wait() -> None:
    recorded = Recorded(max_queue_time=1e9)
    recorded.world.ready("a", "b")
    request = recorded.world.ask()
    recorded.world.dispatcher.request_finished(
        recorded.world.endpoint,
        recorded.world.worker(request.worker.launch_id),
        request.request_idx,
        success=False,
        now=recorded.world.now,
    )
    recorded.later(1)
    recorded.world.ask(request.request_idx)
    recorded.later(4)
    worker = request.worker
    recorded.world.dispatcher.request_finished(
        recorded.world.endpoint, worker, request.request_idx, success=True, now=recorded.world.now
    )
    recorded.later(6)
    recorded.sweep()
    assert recorded.ended == [(request.request_idx, "done", 0.0, 4.0)]


def test_every_outcome_is_recorded() -> None:
    recorded = Recorded(limits=Limits(queue_places_max=1))
    waiting = recorded.world.ask()
    away = recorded.world.ask()
    recorded.world.end_hold(waiting)
    recorded.later(61)
    recorded.sweep()
    recorded.world.ready("a")
    failed = recorded.world.ask(cost=1)
    unheard = recorded.world.ask(cost=1)
    recorded.finish(failed.request_idx, success=False)
    recorded.later(6)
    recorded.sweep()
    recorded.later(600)
    recorded.sweep()
    last = recorded.world.ask(cost=1)
    recorded.world.dispatcher.log_unfinished(recorded.world.endpoint)
    assert [(number, outcome) for number, outcome, _, _ in recorded.ended] == [
        (away.request_idx, "turned_away"),
        (waiting.request_idx, "expired"),
        (failed.request_idx, "failed"),
        (unheard.request_idx, "unknown"),
        (last.request_idx, "cut_off"),
    ]


def test_a_request_that_another_engine_counted_is_marked() -> None:
    recorded = Recorded()
    assert recorded.world.ask(7).counted_elsewhere
    assert not recorded.world.ask().counted_elsewhere


async def test_lines_contain_times_and_cost_only(tmp_path: Path) -> None:
    request_log = RequestLog(RequestLogSettings(path=tmp_path / "deep" / "r.jsonl"))
    served = queued(at=1_700_000_000.1234)
    served.waited_s, served.took_s = 0.25, 1.5
    request_log.record("llm", served, Outcome.DONE)
    request_log.record("llm", queued(), Outcome.EXPIRED)
    await request_log.flush()
    assert lines(tmp_path / "deep" / "r.jsonl") == [
        {
            "at": 1_700_000_000.123,
            "endpoint": "llm",
            "cost": 10.0,
            "wait_s": 0.25,
            "took_s": 1.5,
            "outcome": "done",
        },
        {"at": 100.0, "endpoint": "llm", "cost": 10.0, "wait_s": None, "took_s": None, "outcome": "expired"},
    ]
    assert (tmp_path / "deep" / "r.jsonl").stat().st_mode & 0o077 == 0
    assert request_log.written == 2


def test_the_log_is_bounded_and_the_oldest_file_is_deleted(tmp_path: Path) -> None:
    request_log = RequestLog(RequestLogSettings(path=tmp_path / "r.jsonl", file_bytes_max=1024, files_max=3))
    for number in range(60):
        request_log.record("llm", queued(number, at=float(number)), Outcome.DONE)
        if number % 7 == 0:
            asyncio.run(request_log.flush())
    asyncio.run(request_log.flush())
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["r.jsonl", "r.jsonl.1", "r.jsonl.2"]
    assert all(file.stat().st_size <= 1024 for file in files)
    kept = [line["at"] for file in reversed(files) for line in lines(file)]
    assert kept == [float(number) for number in range(60 - len(kept), 60)]


async def test_an_incomplete_line_of_a_killed_engine_does_not_damage_the_next(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"at":1.0,"cost":2.0}\n{"at":2.0,"co')
    request_log = RequestLog(RequestLogSettings(path=path))
    request_log.record("llm", queued(), Outcome.DONE)
    await request_log.flush()
    assert json.loads(path.read_bytes().splitlines()[-1])["at"] == 100.0


async def test_a_disk_fault_is_counted_and_never_raised(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    request_log = RequestLog(RequestLogSettings(path=tmp_path / "taken" / "r.jsonl"))
    request_log.record("llm", queued(), Outcome.DONE)
    await request_log.flush()
    assert (request_log.written, request_log.dropped) == (0, 1)


def test_the_number_of_pending_lines_is_bounded(tmp_path: Path) -> None:
    request_log = RequestLog(RequestLogSettings(path=tmp_path / "r.jsonl"))
    for number in range(PENDING_MAX + 5):
        request_log.record("llm", queued(number), Outcome.DONE)
    assert request_log.dropped == 5


def test_a_log_too_small_for_a_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1024 bytes"):
        RequestLogSettings(path=tmp_path / "r", file_bytes_max=10)


async def test_the_simulator_reads_the_engines_request_log(bare_stage, tmp_path) -> None:
    path = tmp_path / "requests.jsonl"
    server = await bare_stage.start_engine(request_log=RequestLogSettings(path=path))
    endpoint = await bare_stage.endpoint(max_queue_time=1000)
    worker = endpoint.worker()
    await endpoint.ready(worker)
    given = [await endpoint.route() for _ in range(3)]
    await worker.finish(*(answer["request_idx"] for answer in given[:2]))
    await bare_stage.stop_engine(server)
    await until(path.exists, "the record is there")
    assert [line["outcome"] for line in lines(path)] == ["cut_off", "done", "done"]
    assert {line["endpoint"] for line in lines(path)} == {endpoint.name}
    assert len(read_trace(path)) == 3
