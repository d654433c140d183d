"""Days of an endpoint's life, in seconds: the workflow on a time-skipping server over a marketplace in memory."""

from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus

from market.interface import Launch, OfferGone, Unavailable
from stoker_wire.control import MARKET_TASK_QUEUE, TASK_QUEUE
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.messages import EndpointMemo
from stoker_wire.states import WorkerState as S
from tests.workflows.world import group, replayer


def states(memo: EndpointMemo) -> list[S]:
    return [member.s for member in memo.members]


def ready(memo: EndpointMemo) -> int:
    return sum(member.s is S.READY and not member.d for member in memo.members)


def cold(memo: EndpointMemo) -> int:
    return sum(member.s is S.INACTIVE for member in memo.members)


SMALL = EndpointConfig(min_load=0, min_workers=2, max_workers=6, inactivity_timeout=60, cold_mult=1)


async def test_from_nothing_to_a_burst_and_back_to_zero(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(SMALL, [group()])
        assert await world.live(300, until=lambda memo: ready(memo) + cold(memo) == 2)
        assert await world.live(600, until=lambda memo: cold(memo) == 2), "no load: both go to sleep"
        assert world.market.dollars_per_hour() == 0
        world.queued_load = 50
        assert await world.live(120, load=10, until=lambda memo: ready(memo) >= 1), "a request wakes one"
        world.queued_load = 0
        assert await world.live(600, load=400, until=lambda memo: ready(memo) >= 3), "a burst brings more"
        assert world.market.count("create") > 2
        assert len(world.market.instances) <= 6
        assert await world.live(7200, load=0, until=lambda memo: set(states(memo)) == {S.INACTIVE})
        assert world.market.dollars_per_hour() == 0
        decisions = await world.handle.query("decisions", 150)
        assert {"recruit", "activate", "drain", "stop"} <= {line["kind"] for line in decisions}
        assert all(line["reason"] for line in decisions)


async def test_a_deleted_endpoint_leaves_nothing_behind(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(SMALL, [group()])
        assert await world.live(300, until=lambda memo: len(memo.members) >= 2)
        await world.handle.signal("delete")
        result = await world.handle.result()
        assert world.market.instances == {}
        assert result.workers_rented == result.workers_gone == len(world.market.launches)
        asked = [call.name for call in world.market.calls if call.name != "charges"]
        assert asked[-1] == "list", "the marketplace has the last word"


async def test_a_deleted_endpoint_does_not_end_before_the_market_has_answered(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(SMALL.model_copy(update={"min_workers": 0}), [group()])
        await world.live(30)
        world.market.fail_next("list", Unavailable("down"), times=30)
        late = await world.market.create(129, Launch(label="stoker:llm:0123456789ab"))
        await world.handle.signal("delete")
        await world.pass_time(120)
        described = await world.client.get_workflow_handle(world.handle.id).describe()
        assert described.status is WorkflowExecutionStatus.RUNNING
        await world.handle.result()
        assert late not in world.market.instances


@pytest.mark.parametrize(
    ("days", "day_hours", "night_hours"),
    [(2, 1, 6), pytest.param(7, 10, 14, marks=[pytest.mark.long, pytest.mark.timeout(900)])],
)
async def test_capacity_follows_day_and_night(
    a_world: Any, days: int, day_hours: int, night_hours: int
) -> None:
    async with a_world() as world:
        config = EndpointConfig(min_load=0, min_workers=1, max_workers=6, inactivity_timeout=600, cold_mult=1)
        await world.start(config, [group()])
        peaks, nights = [], []
        for _ in range(days):
            await world.live(day_hours * 3600, load=250, step=600, heartbeat=600)
            peaks.append(ready(await world.memo()))
            await world.live(night_hours * 3600, load=0, step=600, heartbeat=600)
            nights.append(ready(await world.memo()))
            assert len(world.market.instances) <= 6
        assert all(peak >= 1 for peak in peaks)
        assert nights == [0] * days
        status = await world.handle.query("status")
        assert status["dollars"] > 0
        assert status["learned"]["kinds"], "it has learned what machines do"


async def test_a_lost_create_answer_rents_once(a_world: Any) -> None:
    async with a_world(market={"list_lag_seconds": 3.0}) as world:
        world.market.lose_next_answer("create")
        await world.start(SMALL.model_copy(update={"min_workers": 1}), [group(test_workers=0)])
        assert await world.live(300, until=lambda memo: ready(memo) + cold(memo) == 1)
        labels = [launch.label for launch in world.market.launches]
        assert len(labels) == len(set(labels)), "no label was rented twice"
        assert sorted(world.market.labels()) == sorted(labels), "and nothing was rented in vain"


async def test_an_offer_that_is_gone_is_replaced_by_another(a_world: Any) -> None:
    async with a_world() as world:
        world.market.fail_next("create", OfferGone("offer 100 is gone"))
        await world.start(SMALL.model_copy(update={"min_workers": 1}), [group(test_workers=0)])
        assert await world.live(300, until=lambda memo: ready(memo) + cold(memo) == 1)
        fails = [line for line in await world.handle.query("decisions", 150) if line["kind"] == "fail"]
        assert any("gone" in line["reason"] for line in fails)


async def test_a_machine_that_never_becomes_ready_is_released_and_not_tried_again(a_world: Any) -> None:
    async with a_world() as world:
        world.failing_machines = {500}
        await world.start(
            SMALL.model_copy(update={"min_workers": 1}),
            [group(search_params="gpu_name=RTX_3090", test_workers=0)],
        )
        assert await world.live(3600, until=lambda memo: ready(memo) + cold(memo) == 1)
        used = [call.subject for call in world.market.calls if call.name == "create"]
        assert used[0] == 100
        assert used.count(100) == 1
        assert world.market.count("destroy") == 1
        failed = (await world.handle.query("status"))["learned"]["failed_hosts"]
        assert [host["machine_id"] for host in failed] == [500]


async def test_an_instance_that_vanishes_is_noticed_and_replaced(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(
            EndpointConfig(min_load=10, min_workers=1, max_workers=2, cold_mult=1), [group(test_workers=0)]
        )
        assert await world.live(300, load=5, until=lambda memo: ready(memo) == 1)
        lost = next(iter(world.market.instances))
        world.market.vanish(lost)
        assert await world.live(
            600, load=5, until=lambda memo: all(member.i != lost for member in memo.members)
        )
        assert await world.live(600, load=5, until=lambda memo: ready(memo) == 1)
        lines = [line["reason"] for line in await world.handle.query("decisions", 150)]
        assert any("vanished" in line for line in lines)


async def test_an_outbid_worker_is_brought_back_or_replaced(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(
            EndpointConfig(min_load=10, min_workers=1, max_workers=2, cold_mult=1), [group(test_workers=0)]
        )
        assert await world.live(300, load=5, until=lambda memo: ready(memo) == 1)
        lost = next(iter(world.market.instances))
        world.market.outbid(lost)
        assert await world.live(900, load=5, until=lambda memo: S.READY not in states(memo))
        assert await world.live(900, load=5, until=lambda memo: ready(memo) == 1)


async def test_an_instance_that_nobody_knows_is_destroyed(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(SMALL, [group()])
        assert await world.live(300, until=lambda memo: ready(memo) + cold(memo) == 2)
        stray = await world.market.create(129, Launch(label="stoker:llm:0123456789ab"))
        foreign = await world.market.create(128, Launch(label="stoker:llm-2:0123456789ab"))
        assert await world.live(1800, until=lambda _: stray not in world.market.instances)
        assert foreign in world.market.instances, "another endpoint's instance is none of its business"


async def test_the_budget_is_never_exceeded(a_world: Any) -> None:
    async with a_world() as world:
        config = EndpointConfig(
            min_load=0, min_workers=1, max_workers=8, cold_mult=1, dollars_per_hour_max=0.7
        )
        await world.start(config, [group()])
        spent = []
        for _ in range(40):
            await world.live(15, load=600)
            spent.append(world.market.dollars_per_hour())
        assert max(spent) <= 0.7
        assert max(spent) > 0.3, "it uses what it may"
        memo = await world.memo()
        assert memo.wait_code == "budget"


async def test_a_stopped_endpoint_goes_cold_and_a_suspended_one_stays(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(
            EndpointConfig(min_load=10, min_workers=1, max_workers=2, cold_mult=1), [group(test_workers=0)]
        )
        assert await world.live(300, load=5, until=lambda memo: ready(memo) == 1)
        await world.handle.signal("update_config", {"endpoint_state": "suspended"})
        await world.live(1800, load=0)
        assert ready(await world.memo()) == 1, "suspended: as it was"
        await world.handle.signal("update_config", {"endpoint_state": "stopped"})
        assert await world.live(600, load=0, until=lambda memo: set(states(memo)) == {S.INACTIVE})
        await world.handle.signal("update_config", {"endpoint_state": "active"})
        assert await world.live(600, load=5, until=lambda memo: ready(memo) == 1)


async def test_a_rolling_update_brings_every_worker_to_the_new_revision(a_world: Any) -> None:
    async with a_world() as world:
        config = EndpointConfig(min_load=150, min_workers=3, max_workers=4, cold_mult=1)
        await world.start(config, [group(search_params="gpu_name=RTX_4090", test_workers=0)])
        assert await world.live(600, load=100, until=lambda memo: ready(memo) + cold(memo) >= 3)
        await world.handle.signal("update_workers", 1)
        hot = []
        for _ in range(60):
            await world.live(15, load=100)
            memo = await world.memo()
            hot.append(ready(memo))
        assert all(member.n == 0 for member in memo.members), "no update is pending"
        assert min(hot) >= 1, "and it served all the while"
        workers = await world.handle.query("workers")
        assert {worker["revision"] for worker in workers} == {2}


async def test_a_cancelled_update_leaves_what_is_not_updated_as_it_is(a_world: Any) -> None:
    async with a_world() as world:
        config = EndpointConfig(min_load=150, min_workers=3, max_workers=3, cold_mult=1)
        await world.start(config, [group(search_params="gpu_name=RTX_4090", test_workers=0)])
        assert await world.live(600, load=100, until=lambda memo: ready(memo) + cold(memo) >= 3)
        before = set(world.market.instances)
        await world.handle.signal("update_workers", 1)
        await world.handle.execute_update("cancel_update", 1)
        await world.live(600, load=100)
        memo = await world.memo()
        assert all(member.n == 0 and not member.d for member in memo.members), "no update is pending"
        assert set(world.market.instances) == before
        assert world.market.count("update_template") <= 1, "at most the one whose update had begun"


async def test_a_removed_workergroup_takes_its_workers_along(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(SMALL, [group()])
        assert await world.live(300, until=lambda memo: ready(memo) + cold(memo) == 2)
        await world.handle.signal("remove_workergroup", 1)
        assert await world.live(600, until=lambda memo: not memo.members)
        assert world.market.instances == {}


async def test_a_market_that_is_down_for_an_hour_is_survived(a_world: Any) -> None:
    async with a_world() as world:
        for call in ("search", "list", "create", "template"):
            world.market.fail_next(call, Unavailable("the market is down"), times=60)
        await world.start(SMALL, [group()])
        assert await world.live(3 * 3600, step=30, until=lambda memo: ready(memo) + cold(memo) == 2)


async def test_planning_again_without_news_changes_nothing(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(SMALL, [group()])
        assert await world.live(600, until=lambda memo: cold(memo) == 2)
        asking = {"list", "search", "template", "charges"}
        calls = [call for call in world.market.calls if call.name not in asking]
        await world.live(6 * 3600, step=300, heartbeat=300)
        after = [call for call in world.market.calls if call.name not in asking]
        assert after == calls


async def test_a_look_neither_spends_the_marketplaces_rate_nor_waits_in_its_queue(a_world: Any) -> None:
    """The looks of a thousand endpoints are one call (`market.shared_listing`): they must not hold up what rents."""
    async with a_world() as world:
        await world.start(SMALL, [group()])
        await world.live(120)
        queues: dict[str, set[str]] = {}
        for history in await world.histories():
            for event in history.events:
                if event.HasField("activity_task_scheduled_event_attributes"):
                    asked = event.activity_task_scheduled_event_attributes
                    queues.setdefault(asked.activity_type.name, set()).add(asked.task_queue.name)
        assert queues["list_instances"] == {TASK_QUEUE}
        assert queues["create_instance"] == queues["search_offers"] == {MARKET_TASK_QUEUE}


async def test_the_first_start_does_not_wait_in_the_marketplaces_queue_and_the_next_ones_do(
    a_world: Any,
) -> None:
    """A waiting request does not wait for other endpoints' calls. A herd of starts keeps the marketplace's rate."""
    async with a_world() as world:
        await world.start(SMALL.model_copy(update={"min_workers": 3}), [group()])
        assert await world.live(600, until=lambda memo: cold(memo) == 3)
        before = world.market.count("start")
        world.queued_load = 20_000
        assert await world.live(120, load=400, until=lambda memo: ready(memo) >= 3)
        started = [
            event.activity_task_scheduled_event_attributes.task_queue.name
            for history in await world.histories()
            for event in history.events
            if event.activity_task_scheduled_event_attributes.activity_type.name == "start_instance"
        ]
        # Three at once, from their own queue; two of them again, from the market's.
        assert sorted(started) == sorted([TASK_QUEUE] * 3 + [MARKET_TASK_QUEUE] * 2), started
        assert world.market.count("start") - before == 3


async def test_an_endpoint_outlives_a_planner_that_fails(
    a_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local activity's fault comes as it is: taken for something else it would end the workflow, its machines paid for."""

    def broken(*_: Any) -> Any:
        raise ValueError("a fault of ours")

    async with a_world() as world:
        await world.start(SMALL, [group()])
        await world.live(60)
        with monkeypatch.context() as patch:
            patch.setattr("activities.planner.decide", broken)
            await world.live(120, load=50.0)
        lines = [line["reason"] for line in await world.handle.query("decisions", 200)]
        assert "planner: ValueError: a fault of ours" in lines
        assert await world.live(600, until=lambda memo: len(memo.members) == 2), (
            "and goes on when it is mended"
        )
        for history in await world.histories():
            await replayer().replay_workflow(history)


async def test_an_endpoint_can_be_deleted_although_its_planner_fails(
    a_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ValueError("a fault of ours")

    async with a_world() as world:
        await world.start(SMALL.model_copy(update={"min_load": 50}), [group()])
        assert await world.live(600, until=lambda memo: ready(memo) >= 1)
        monkeypatch.setattr("activities.planner.decide", broken)
        await world.handle.signal("delete")
        await world.live_on_until_gone(900)
        assert not await world.market.list()
        lines = [line["reason"] for line in await world.handle.query("decisions", 200)]
        assert "planner: ValueError: a fault of ours" in lines
        for history in await world.histories():
            await replayer().replay_workflow(history)


@pytest.mark.parametrize("name", ["in_flight", "tickets_open"])
async def test_a_count_beyond_all_floats_is_refused_and_stops_nothing(a_world: Any, name: str) -> None:
    async with a_world() as world:
        await world.start(SMALL, [group()])
        await world.live(120, load=50.0)
        worker = {"launch_id": "a" * 12, "instance_id": 1, "condition": "ready", name: 10**400}
        await world.handle.signal(
            "report_metrics",
            {"engine_id": "e", "sequence": 1, "sent_at": world.now, "workers": [worker]},
        )
        line = (await world.handle.query("decisions"))[-1]
        assert line["reason"].startswith("refused: ")
        assert name in line["reason"]
