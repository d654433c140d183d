"""Replays the histories of the main scenarios: changed workflow code must issue the same commands.

`STOKER_RECORD_HISTORIES=1 pytest tests/workflows/test_replay.py` runs the scenarios and writes their histories. Do
that for a new scenario or an intended change. A failing replay alone is no reason: running endpoints would fail, too.
The same variable records `upgraded` in test_upgrade.py, and `faults`, of real processes that were killed, in
`python -m benchmarks.faults kill-…`.
"""

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory

from market.interface import OfferGone, RateLimited
from policy.tuning import DEFAULT_TUNING
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.messages import EndpointMemo
from stoker_wire.states import WorkerState as S
from tests.workflows.recording import ASKED_FOR, HISTORIES, MOVE_SECONDS_MIN, record
from tests.workflows.world import SECRETS, World, group, replayer

SMALL = EndpointConfig(min_load=0, min_workers=2, max_workers=4, inactivity_timeout=60, cold_mult=1)
ONE = EndpointConfig(min_load=0, min_workers=1, max_workers=2, inactivity_timeout=60, cold_mult=1)


def settled(memo: EndpointMemo) -> bool:
    return bool(memo.members) and all(member.s in {S.READY, S.INACTIVE} for member in memo.members)


async def burst(world: World) -> None:
    """From nothing to two cold workers, a burst, calm, deleted."""
    await world.start(SMALL, [group()])
    await world.live(300, step=20, until=lambda memo: [m.s for m in memo.members] == [S.INACTIVE] * 2)
    await world.live(90, load=200, step=10)
    await world.live(900, step=30, until=lambda memo: {m.s for m in memo.members} == {S.INACTIVE})
    await end(world)


async def woken(world: World) -> None:
    """Three cold workers that are started together: the first at once, the others by the marketplace's queue."""
    await world.start(SMALL.model_copy(update={"min_workers": 3, "max_workers": 3}), [group()])
    await world.live(600, step=20, until=lambda memo: [m.s for m in memo.members] == [S.INACTIVE] * 3)
    world.queued_load = 20_000
    await world.live(120, load=400, step=10, until=lambda memo: [m.s for m in memo.members] == [S.READY] * 3)


async def trouble(world: World) -> None:
    """An offer that is gone, a market that asks for patience, a lost answer, a machine that vanishes."""
    world.market.fail_next("create", OfferGone("gone"))
    world.market.fail_next("search", RateLimited("slow down", retry_after_s=3))
    await world.start(ONE.model_copy(update={"min_load": 10}), [group(test_workers=0)])
    await world.live(120, load=5, step=10, until=settled)
    world.market.vanish(next(iter(world.market.instances)))
    world.market.lose_next_answer("create")
    await world.live(300, load=5, step=15)
    await end(world)


async def changes(world: World) -> None:
    """Config by signal and by update, refused ones too; a rolling update; stopped; a group removed."""
    await world.start(ONE.model_copy(update={"min_load": 10}), [group()])
    await world.live(120, load=5, step=10, until=settled)
    assert world.handle is not None
    await world.handle.signal("update_config", {"target_util": 5})
    await world.handle.execute_update("update_config", {"target_util": 0.8})
    await world.handle.execute_update("rotate_key")
    await world.handle.signal("update_workers", 1)
    await world.live(300, load=5, step=15)
    await world.handle.signal("update_config", {"endpoint_state": "stopped"})
    await world.live(60, step=10)
    await world.handle.execute_update("remove_workergroup", 1)
    await world.live(60, step=10)
    await end(world)


async def handed_over(world: World) -> None:
    """Three runs of one endpoint."""
    await world.start(ONE, [group()], history_events_max=150)
    await world.live(300, step=20, until=settled)
    await world.live(400, load=20, step=10)
    await end(world)


async def end(world: World) -> None:
    assert world.handle is not None
    handle = world.client.get_workflow_handle(world.handle.id)
    await handle.signal("delete")
    await world.live_on_until_gone()


SCENARIOS: dict[str, Callable[[World], Awaitable[None]]] = {
    scenario.__name__: scenario for scenario in (burst, woken, trouble, changes, handed_over)
}


@pytest.mark.skipif(not ASKED_FOR, reason="recording is asked for by a variable")
@pytest.mark.parametrize("name", SCENARIOS)
async def test_record(a_world: Any, name: str) -> None:
    async with a_world() as world:
        await SCENARIOS[name](world)
        await asyncio.to_thread(record, name, await world.histories())


RECORDED = sorted(HISTORIES.glob("*.json"))


def test_every_scenario_is_recorded() -> None:
    elsewhere = {"upgraded", "faults"}  # by test_upgrade.py, and by `python -m benchmarks.faults`
    assert {path.stem.rpartition("-")[0] for path in RECORDED} == {*SCENARIOS, *elsewhere}
    assert sum(path.stem.startswith("handed_over") for path in RECORDED) > 1, "its later runs too"


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
async def test_a_recorded_history_replays(path: Path) -> None:
    assert await replay_failure(path) is None


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
async def test_a_recorded_history_replays_under_an_absurd_policy(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(observation: Any) -> Any:
        raise AssertionError("a replay asks the planner again, so no policy could ever change")

    tuning = asdict(DEFAULT_TUNING)
    absurd = {name: value * 7 + 1 for name, value in tuning.items() if isinstance(value, int | float)}
    monkeypatch.setattr("activities.planner.decide", never)
    monkeypatch.setattr("controller.state.DEFAULT_TUNING", replace(DEFAULT_TUNING, **absurd))
    assert await replay_failure(path) is None


async def replay_failure(path: Path) -> Exception | None:
    text = await asyncio.to_thread(path.read_text)
    with pytest.MonkeyPatch.context() as patch:
        if path.stem.startswith("upgraded"):
            patch.setattr("workflows.endpoint.MOVE_SECONDS_MIN", MOVE_SECONDS_MIN)
        return await _replay_failure(text)


async def _replay_failure(text: str) -> Exception | None:
    history = WorkflowHistory.from_json("endpoint/llm", text)
    result = await replayer().replay_workflow(history, raise_on_replay_failure=False)
    return result.replay_failure


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recorded_history_holds_no_secret_and_no_path(path: Path) -> None:
    text = path.read_text()
    payloads = re.findall(r'"data":"([A-Za-z0-9+/=]+)"', text)
    text += b"\n".join(base64.b64decode(payload) for payload in payloads).decode(errors="replace")
    forbidden = [
        *SECRETS.named.values(),
        SECRETS.hmac_secret.decode(),
        SECRETS.worker_token(1, "")[:12],
        "/site-packages/",
        "/home/",
        str(Path(__file__).parents[2]),
    ]
    assert [word for word in forbidden if word in text] == []


def test_the_secret_search_would_find_one() -> None:
    data = base64.b64encode(b"HF_TOKEN=" + SECRETS.named["HF_TOKEN"].encode()).decode()
    found = re.findall(r'"data":"([A-Za-z0-9+/=]+)"', json.dumps({"data": data}, separators=(",", ":")))
    assert SECRETS.named["HF_TOKEN"] in base64.b64decode(found[0]).decode()
