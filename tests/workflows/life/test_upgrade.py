"""From one build of the workers to another and back, on a live endpoint: everything is kept, no signal is lost."""

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from typing import Any

import pytest
from pydantic import ValidationError
from temporalio.common import WorkerDeploymentVersion
from temporalio.testing import WorkflowEnvironment

from activities.instances import MarketActivities
from controller.previous_run import read_carried_state
from controller.state import EndpointStateBook
from policy.state.observation import Memory
from run.commands.rollout import build_of, roll_out
from run.errors import CommandError
from run.settings import WorkerChoice
from stoker_wire.control import SWEEP_ID, EndpointSpec
from stoker_wire.endpoint import EndpointConfig
from tests.workflows.life.test_continue_as_new import runs
from tests.workflows.recording import ASKED_FOR, MOVE_SECONDS_MIN, record
from tests.workflows.world import SECRETS, World, group, make_market
from workflows.sweep.sweep import ensure_sweep
from workflows.temporal_worker.worker import WorkerSettings, build_workers

IDLE = EndpointConfig(min_load=0, min_workers=0, max_workers=4)


class Builds:
    """Workers of several builds of one deployment, over one marketplace."""

    def __init__(self, server: WorkflowEnvironment, stack: AsyncExitStack) -> None:
        self.world = World(server, server.client, None, model_seconds=0.0)  # type: ignore[arg-type]
        self.world.market = make_market(self.world.clock, pull_seconds=0.0, start_seconds=0.0)
        self._stack = stack
        self.said: list[str] = []

    async def start(self, build_id: str | None) -> None:
        version = WorkerDeploymentVersion("stoker", build_id) if build_id else None
        settings = WorkerSettings(
            market_calls_per_second=10_000, graceful_shutdown_seconds=1, version=version
        )
        hands = MarketActivities(self.world.market, SECRETS)
        for worker in build_workers(self.world.client, hands, settings):
            await self._stack.enter_async_context(worker)

    async def roll_out(self, build_id: str, **how: Any) -> Any:
        choice = WorkerChoice(deployment="stoker", build_id=build_id)
        return await roll_out(
            self.world.client, choice, **({"seconds_max": 30.0, "say": self.said.append} | how)
        )

    async def build(self, workflow: str = "endpoint/llm") -> str:
        return build_of(await self.world.client.get_workflow_handle(workflow).describe())


@pytest.fixture
def builds(server: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("workflows.endpoint.MOVE_SECONDS_MIN", MOVE_SECONDS_MIN)
    monkeypatch.setattr("run.commands.rollout.WAKE_SECONDS", 0.6)

    @asynccontextmanager
    async def make() -> Any:
        async with AsyncExitStack() as stack:
            yield Builds(server, stack)

    return make


async def test_up_and_down_under_a_stream_of_signals_nothing_is_lost(builds: Any) -> None:
    async with builds() as deployment:
        world = deployment.world
        await deployment.start("1")
        await deployment.roll_out("1")
        await ensure_sweep(world.client)
        await world.start(IDLE.model_copy(update={"min_workers": 1}), [group(test_workers=0)])
        await world.live(20, step=0.5, until=lambda memo: bool(memo.members) and memo.members[0].i > 0)
        rented = [worker["launch_id"] for worker in await world.handle.query("workers")]
        assert await deployment.build() == "1"
        sent, enough = 0, asyncio.Event()

        async def send() -> None:
            nonlocal sent
            while not enough.is_set():
                sent += 1
                batch = {"engine_id": "e", "sequence": sent, "sent_at": time.time()}
                batch |= {"window_s": 1.0, "arrived_load": 1.0, "last_request_at": time.time()}
                await world.handle.signal("report_metrics", batch)
                await world.handle.signal("update_config", {"max_queue_time": 10.0 + sent})
                await asyncio.sleep(0.5 if ASKED_FOR else 0.02)  # keeps the committed history small

        sending = asyncio.create_task(send())
        for build_id, before in (("2", "1"), ("1", "2")):
            if build_id == "2":
                await deployment.start("2")
            done = await deployment.roll_out(build_id)
            assert (done.before, done.left) == (before, ())
            assert set(done.moved) == {"endpoint/llm", SWEEP_ID}
            assert await deployment.build() == await deployment.build(SWEEP_ID) == build_id
        enough.set()
        await sending
        status = await world.handle.query("status")
        assert status["config"]["max_queue_time"] == 10.0 + sent
        arrived = sum(load for _, load in (await world.handle.query("load"))["quarters"])
        assert arrived == pytest.approx(sent), "each batch counts once, whichever build it reached"
        assert [worker["launch_id"] for worker in await world.handle.query("workers")] == rented
        assert len(world.market.launches) == 1
        assert await runs(world) == 3
        if ASKED_FOR:
            await asyncio.to_thread(record, "upgraded", await world.histories())


@pytest.mark.long
async def test_an_endpoint_that_nobody_speaks_to_stays_on_its_build_until_it_is_woken(builds: Any) -> None:
    async with builds() as deployment:
        await deployment.start("1")
        await deployment.roll_out("1")
        await deployment.world.start(IDLE)
        while await deployment.build() != "1":
            await asyncio.sleep(0.05)
        await deployment.start("2")
        assert (await deployment.roll_out("2")).moved == ("endpoint/llm",)
        assert await deployment.build() == "2"


async def test_endpoints_of_workers_that_were_not_versioned_are_taken_over(builds: Any) -> None:
    async with builds() as deployment:
        await deployment.start(None)
        await deployment.world.start(IDLE)
        await deployment.world.handle.query("status")
        assert await deployment.build() == ""
        await deployment.start("1")
        done = await deployment.roll_out("1")
        assert (done.before, done.moved) == ("", ("endpoint/llm",))
        assert await deployment.build() == "1"
        assert await runs(deployment.world) == 1, "it goes on where it was: its history replays"


async def test_a_build_without_workers_is_not_rolled_out(builds: Any) -> None:
    async with builds() as deployment:
        with pytest.raises(
            CommandError, match=r"no worker of build 9 .* polls; start `stokerd worker --build-id 9`"
        ):
            await deployment.roll_out("9", seconds_max=1.0)


@pytest.mark.long
async def test_what_does_not_move_is_named(builds: Any) -> None:
    async with builds() as deployment, AsyncExitStack() as of_the_old:
        old = Builds(deployment.world.env, of_the_old)
        old.world = deployment.world
        await old.start("1")
        await deployment.roll_out("1")
        await deployment.world.start(IDLE)
        while await deployment.build() != "1":
            await asyncio.sleep(0.05)
        await of_the_old.aclose()  # too early: it still carries the endpoint
        await deployment.start("2")
        done = await deployment.roll_out("2", seconds_max=3.0)
        assert (done.moved, done.left) == ((), ("endpoint/llm",))
        await deployment.start("1")
        assert (await deployment.roll_out("2")).moved == ("endpoint/llm",)


def handed_on() -> dict[str, Any]:
    spec = EndpointSpec(endpoint_name="llm", endpoint_id=1, config=IDLE, workergroups=(group(),))
    return EndpointStateBook(spec).spec().model_dump(mode="json")


def test_what_a_newer_build_added_is_left_out_and_named() -> None:
    before = handed_on()
    newer = handed_on()
    newer["color"] = "blue"
    newer["config"]["warmth"] = 3
    newer["carried"]["mood"] = {"calm": 1}
    newer["carried"]["config"]["warmth"] = 3
    newer["carried"]["workergroups"][0]["spot"] = True
    spec, unknown = read_carried_state(EndpointSpec.model_validate, newer)
    book = EndpointStateBook(spec)
    assert set(unknown) == {"color", "config.warmth"}
    assert set(book.unknown) == {"config.warmth", "workergroups.0.spot"}, "a record's own are ignored"
    older = EndpointStateBook(EndpointSpec.model_validate(before))
    assert asdict(book.record) == asdict(older.record)


def test_a_memory_that_cannot_be_read_begins_anew_and_is_named() -> None:
    carried = handed_on()["carried"]
    carried |= {
        "load": {"mean_cost": "much"},
        "memory": {"above_since": "long ago"},
        "color": "blue",
        "workers_rented": 7,
    }
    spec = EndpointSpec(endpoint_name="llm", endpoint_id=1, config=IDLE, carried=carried)
    book = EndpointStateBook(spec)
    assert book.forgotten == ("load", "memory")
    assert book.record.memory == Memory()
    assert book.record.workers_rented == 7, "the rest is kept"


@pytest.mark.parametrize("field", ["workers", "ledger", "config"])
def test_what_an_endpoint_owns_and_owes_is_never_forgotten(field: str) -> None:
    carried = handed_on()["carried"] | {field: "?"}
    with pytest.raises(ValidationError, match=field):
        EndpointStateBook(EndpointSpec(endpoint_name="llm", endpoint_id=1, config=IDLE, carried=carried))


def test_what_is_wrong_otherwise_is_still_an_error() -> None:
    broken = handed_on() | {"endpoint_id": "x", "color": "blue"}
    with pytest.raises(ValidationError, match="endpoint_id"):
        read_carried_state(EndpointSpec.model_validate, broken)
