"""Advice on a live endpoint: compared, told, carried through every restart, and never carried out."""

import json
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError

from activities.planner import plan as planner
from controller.whatif import advice_events
from controller.whatif.advice import begin
from policy.state.worker import Worker
from stoker_wire.endpoint import EndpointConfig, EndpointPatch
from stoker_wire.messages import EndpointMemo
from stoker_wire.states import WorkerState as S
from tests.policy.builders import see, steady
from tests.policy.builders import worker as a_worker
from tests.workflows.messages.test_records import full_book
from tests.workflows.world import group
from workflows import message_validation
from workflows.publish import details_of

LOADED = EndpointConfig(min_load=0, min_workers=0, max_workers=8, cold_mult=1, target_util=0.5)


def hot(memo: EndpointMemo) -> int:
    return sum(member.s is S.READY for member in memo.members)


async def test_a_second_config_is_compared_and_the_market_hears_nothing_of_it(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(LOADED, [group(test_workers=0)])
        assert await world.live(900, load=150, until=lambda memo: hot(memo) >= 3)
        await world.live(300, load=150)
        calls = ("create", "start", "stop", "destroy", "search")
        before = {call: world.market.count(call) for call in calls}
        assert await world.handle.execute_update("advise", {"config": {"target_util": 1.0}})
        await world.live(1200, load=150)
        advice = await world.handle.query("advice")
        assert advice["active"]
        assert advice["config"] == {"target_util": 1.0}
        assert advice["advised"]["hot_mean"] < advice["live_imagined"]["hot_mean"]
        assert advice["advised"]["dollars"] < advice["live_imagined"]["dollars"]
        assert advice["live"]["dollars"] == pytest.approx(advice["live_imagined"]["dollars"], rel=0.3)
        assert {call: world.market.count(call) for call in calls} == before
        lines = [line for line in await world.handle.query("decisions", 150) if line["kind"] == "advise"]
        assert "nothing of it is carried out: target_util = 1.0" in lines[0]["reason"]
        assert any(line["reason"].startswith("over ") for line in lines), "summed up after ten minutes"
        details = await world.handle.query("__temporal_workflow_metadata")
        text = details["currentDetails"] if isinstance(details, dict) else details.current_details
        assert "## Advice (nothing of it is carried out)" in text
        assert "advised (target_util = 1.0)" in text
        assert await world.handle.execute_update("advise", None) is False
        assert (await world.handle.query("advice"))["active"] is False
        assert "advice ends" in (await world.handle.query("decisions", 5))[-1]["reason"]


async def test_advice_goes_on_through_continue_as_new(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(LOADED, [group(test_workers=0)], history_events_max=120)
        assert await world.live(900, load=150, until=lambda memo: hot(memo) >= 3)
        await world.handle.execute_update("advise", {"config": {"error_budget": 0.02}})
        await world.live(60, load=150)
        first = await world.handle.query("advice")
        runs = len(await world.histories())
        await world.live(1800, load=150, step=20, heartbeat=20)
        assert len(await world.histories()) > runs
        later = await world.handle.query("advice")
        assert (later["since"], later["config"]) == (first["since"], {"error_budget": 0.02})
        assert later["until"] > first["until"] + 1000
        assert later["advised"]["dollars"] > first["advised"]["dollars"]


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({"config": {"target_util": 2}}, "target_util"),
        ({"config": {"speed": 2}}, "speed"),
        ({"config": {}}, "nothing differs from the live config"),
        ("cheaper, please", "valid"),
    ],
)
async def test_advice_that_cannot_be_used_is_refused_in_words(a_world: Any, sent: Any, says: str) -> None:
    async with a_world() as world:
        await world.start(LOADED)
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await world.handle.execute_update("advise", sent)
        assert says in str(refused.value.cause)
        assert (await world.handle.query("advice"))["active"] is False


async def test_a_deleted_endpoint_ends_with_its_advice(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(LOADED, [group(test_workers=0)])
        assert await world.live(900, load=50, until=lambda memo: hot(memo) >= 1)
        await world.handle.execute_update("advise", {"config": {"target_util": 1.0}})
        await world.handle.signal("delete")
        await world.live_on_until_gone()
        assert not world.market.instances


def test_what_is_not_asked_for_is_not_carried() -> None:
    book = full_book(3)
    assert "advice" not in book.carried()
    advice_events.advise(book, message_validation.advise({"config": {"target_util": 0.8}}, book), 1.0)
    assert "advice" in book.carried()


def test_a_hundred_workers_and_their_two_shadows_stay_far_under_what_a_new_run_may_carry() -> None:
    book = full_book()
    without = len(json.dumps(book.carried(), separators=(",", ":")))
    advice_events.advise(
        book, message_validation.advise({"config": {"target_util": 0.8}}, book), 1795447200.0
    )
    more = len(json.dumps(book.carried(), separators=(",", ":"))) - without
    assert more < 36_000
    assert len(details_of(book, now=1795447200.0).encode()) < 20_000


async def test_a_planner_whose_advice_fails_still_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("imagination ran wild")

    monkeypatch.setattr("activities.planner.advance_advice", broken)
    seen = see(load=steady(100))
    advice = begin(seen, EndpointPatch(target_util=0.5), dollars=0.0)
    decided = await planner(seen, advice)
    assert decided.plan.operations
    assert decided.advice is None


def test_a_late_answer_to_other_advice_changes_nothing() -> None:
    book = full_book(2)
    advice_events.advise(book, message_validation.advise({"config": {"target_util": 0.8}}, book), 1.0)
    old = book.record.advice
    advice_events.advise(book, message_validation.advise({"config": {"target_util": 0.7}}, book), 1.0)
    new = book.record.advice
    advice_events.adopt(book, old, 20.0)
    assert book.record.advice is new
    advice_events.advise(book, None, 30.0)
    advice_events.adopt(book, new, 40.0)
    assert book.record.advice is None


def test_a_worker_of_the_book_is_copied_as_it_is() -> None:
    book = full_book(20)
    book.record.workers["aaaaaaaaaaaa"] = Worker(
        **{name: getattr(a_worker("aaaaaaaaaaaa"), name) for name in Worker.__dataclass_fields__}
    ).replace(state=S.ERROR)
    advice_events.advise(book, message_validation.advise({"config": {"target_util": 0.8}}, book), 1.0)
    advice = book.record.advice
    assert advice is not None
    assert advice.live.hot == 20  # the broken one is not imagined
    assert sum(machine.drain_since is not None for machine in advice.live.machines) == 2
