"""Engines run on other machines: an endpoint lives on whatever their clocks say."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from policy.experience import Experience
from policy.load import LoadHistory
from policy.observation import Memory
from stoker_wire.control import EndpointSpec
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.states import WorkerState as S
from tests.workflows.world import World, group, replayer
from workflows import clocks
from workflows.messages import EndpointMemo, MetricsBatch
from workflows.state import EndpointStateBook

TWO = EndpointConfig(min_load=0, min_workers=2, max_workers=2)
AHEAD_SECONDS = 3600.0


def settled(memo: EndpointMemo) -> bool:
    return len(memo.members) == 2 and all(member.s in {S.READY, S.INACTIVE} for member in memo.members)


async def load(world: World) -> dict[str, Any]:
    assert world.handle is not None
    told: dict[str, Any] = await world.handle.query("load")
    return told


def moved(batch: MetricsBatch, seconds: float, frozen: dict[str, float]) -> MetricsBatch:
    """The batch of an engine whose clock is ahead, and of workers of which some have fallen silent."""
    workers = [
        worker.model_copy(
            update={
                "reported_at": frozen.get(worker.launch_id, worker.reported_at) + seconds,
                "suspect_since": None,
            }
        )
        for worker in batch.workers
    ]
    last = batch.last_request_at
    return batch.model_copy(
        update={
            "sent_at": batch.sent_at + seconds,
            "last_request_at": None if last is None else last + seconds,
            "workers": tuple(workers),
        }
    )


@pytest.mark.parametrize("sent_at", [1e300, -1e300, 1e18, -1e18, 1e12, 0.0])
async def test_a_batch_from_beyond_all_time_does_not_stop_the_endpoint(a_world: Any, sent_at: float) -> None:
    async with a_world() as world:
        await world.start(TWO, [group()])
        odd = MetricsBatch(
            engine_id="astray", sequence=1, sent_at=sent_at, window_s=1e12, arrived_load=5.0, arrived_requests=1,
            last_request_at=sent_at,
        )  # fmt: skip
        await world.signal_metrics(odd)
        assert await world.live(600, until=settled)
        assert (await load(world))["known_until"] <= world.now
        await world.handle.execute_update("change_config", {"max_workers": 3})
        for history in await world.histories():
            await replayer().replay_workflow(history)


async def test_an_engine_whose_clock_is_ahead_tells_of_now(
    a_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world() as world:
        send, frozen = world.signal_metrics, {}
        monkeypatch.setattr(world, "signal_metrics", lambda batch: send(moved(batch, AHEAD_SECONDS, frozen)))
        await world.start(TWO, [group()])
        assert await world.live(600, until=settled)
        await world.live(120, load=100.0)
        told = await load(world)
        assert world.now - 70 <= told["known_until"] <= world.now
        assert world.now - 70 <= told["last_request_at"] <= world.now

        # a worker that dies is missed as soon as with a right clock
        silent = next(member.l for member in (await world.memo()).members if member.s is S.READY)
        frozen[silent] = world.now
        before = world.market.count("reboot") + world.market.count("destroy")
        assert await world.live(
            300,
            load=100.0,
            until=lambda _: world.market.count("reboot") + world.market.count("destroy") > before,
        )
        for history in await world.histories():
            await replayer().replay_workflow(history)


async def test_a_clock_that_is_a_little_ahead_is_left_alone(
    a_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world() as world:
        send = world.signal_metrics
        monkeypatch.setattr(world, "signal_metrics", lambda batch: send(moved(batch, 2.0, {})))
        await world.start(TWO, [group()])
        assert await world.live(600, until=settled)
        await world.report(await world.memo(), 50.0, urgent="a test")
        told = await load(world)
        assert told["known_until"] > world.now
        marks = [event for history in await world.histories() for event in history.events
                 if event.HasField("marker_recorded_event_attributes")
                 and b"one-clock" in event.SerializeToString()]  # fmt: skip
        assert marks == []


async def test_what_comes_late_from_a_right_clock_is_booked_when_it_was_sent(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(TWO, [group()])
        assert await world.live(600, until=settled)
        await world.live(120, load=50.0)
        sent_at = world.now // 5 * 5 + 5
        await world.pass_time(105)
        late = MetricsBatch(
            engine_id=world.engine_id, sequence=world.next_sequence(), sent_at=sent_at, window_s=5.0,
            arrived_load=7000.0, arrived_requests=1,
        )  # fmt: skip
        before = dict((await load(world))["seconds"])
        await world.signal_metrics(late)
        after = dict((await load(world))["seconds"])
        assert {at for at in after if after[at] - before.get(at, 0.0) > 1000} <= {sent_at - 5, sent_at}


async def hand_on_from_the_future(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is handed what a build handed on that believed an engine whose clock was ahead."""
    carried = EndpointStateBook.carried

    def from_the_future(book: EndpointStateBook) -> dict[str, Any]:
        record, future = book.record, world.now + AHEAD_SECONDS
        words = tuple(replace(engine, at=future) for engine in record.load.engines)
        record.load = replace(record.load, known_until=future, last_request_at=future, engines=words)
        experience = replace(record.memory.experience, at=future)
        record.memory = replace(record.memory, experience=experience)
        for name, worker in record.workers.items():
            record.workers[name] = worker.but(reported_at=future, suspect_since=future)
        return carried(book)

    runs = len(await world.histories())
    with monkeypatch.context() as before:
        before.setattr(EndpointStateBook, "carried", from_the_future)
        for _ in range(200):
            await world.live(5, load=100.0)
            if len(await world.histories()) > runs:
                return
    raise AssertionError("it is never handed on")


async def test_what_was_handed_on_from_the_future_begins_anew(
    a_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world() as world:
        await world.start(TWO, [group()], history_events_max=150)
        assert await world.live(600, until=settled)
        rented = len(world.market.launches)
        await hand_on_from_the_future(world, monkeypatch)
        told = await load(world)
        assert max([told["known_until"] or 0.0, *(engine["at"] for engine in told["engines"])]) <= world.now
        lines = [line["reason"] for line in await world.handle.query("decisions", 150)]
        assert any("told from the future" in line and "load" in line for line in lines)
        await world.live(120, load=100.0)
        told = await load(world)
        assert world.now - 70 <= told["known_until"] <= world.now
        for worker in await world.handle.query("workers"):
            assert worker["reported_at"] <= world.now
            assert worker["suspect_since"] is None
        assert len(world.market.launches) == rented, "no capacity was lost over it"
        for history in await world.histories():
            await replayer().replay_workflow(history)


async def test_a_run_that_went_on_from_the_future_replays(
    a_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world() as world:
        with monkeypatch.context() as before:
            before.setattr(clocks, "forget_the_future", lambda *_: ())
            await world.start(TWO, [group()], history_events_max=150)
            assert await world.live(600, until=settled)
            await hand_on_from_the_future(world, monkeypatch)
            await world.live(60, load=50.0)
            await world.handle.signal("delete")
            await world.live_on_until_gone()
            histories = await world.histories()
        assert len(histories) > 1
        for history in histories:
            await replayer().replay_workflow(history)


def test_a_state_of_now_is_handed_on_whole() -> None:
    spec = EndpointSpec(endpoint_name="llm", endpoint_id=1, config=TWO)
    record = EndpointStateBook(spec).record
    record.load = LoadHistory(known_since=900.0, known_until=1000.0, late_load=7.0)
    record.memory = Memory(experience=Experience(at=1000.0, since=900.0))
    before = deepcopy(record)
    assert clocks.forget_the_future(record, 1000.0) == ()
    assert record == before
