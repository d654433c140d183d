"""Machines that no endpoint looks after, on the real server: the workflow task fails without end, or a person terminated
everything in the Temporal UI. Intervals are shortened by the sweep's own settings."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus

from activities.progress import Progress, progress_of
from activities.sweep_watchdog import StalledEndpoint, SweepSpec, SweepWatchdog, ensure_sweep
from controller.state import EndpointStateBook
from stoker.control import Control
from stoker_wire.control import SWEEP_ID
from stoker_wire.endpoint import EndpointConfig
from tests.workflows.world import World, group
from workflows.sweep.sweep import _since

SMALL = EndpointConfig(min_load=0, min_workers=2, max_workers=4, cold_mult=1)
HURRY = SweepSpec(every_seconds=0.5, young_seconds=0.0, stuck_seconds=3.0)
SECONDS_MAX = 60.0


async def until(true: Callable[[], Any], seconds: float = SECONDS_MAX) -> float:
    """How long it took, s."""
    began = time.monotonic()
    while True:
        value = true()
        if await value if asyncio.iscoroutine(value) else value:
            return time.monotonic() - began
        assert time.monotonic() - began < seconds, "not in time"
        await asyncio.sleep(0.05)


async def with_machines(world: World) -> None:
    await world.start(SMALL, [group()])
    await until(lambda: len(world.market.instances) == 2)


async def stuck(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on a mistake of the build fails every workflow task of every endpoint."""

    def mistake(*_: Any, **__: Any) -> None:
        raise RuntimeError("a mistake of this build")

    monkeypatch.setattr(EndpointStateBook, "observation", mistake)
    assert world.handle is not None
    await world.handle.signal("update_config", {"max_workers": 3})

    async def fails() -> bool:
        return bool((await progress_of(world.client, "endpoint/llm")).fault)

    await until(fails)


async def status(world: World) -> WorkflowExecutionStatus | None:
    return (await world.client.get_workflow_handle("endpoint/llm").describe()).status


async def test_an_endpoint_without_progress_loses_its_machines_and_is_ended_later(
    real_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with real_world() as world:
        await with_machines(world)
        await stuck(world, monkeypatch)
        spec = SweepSpec(every_seconds=0.5, young_seconds=0.0, stuck_seconds=3.0, stuck_end_seconds=12.0)
        await ensure_sweep(world.client, spec)
        sweep = world.client.get_workflow_handle(SWEEP_ID)
        took = await until(lambda: not world.market.instances)
        assert took >= 2.0, "not at the first look"
        assert await status(world) is WorkflowExecutionStatus.RUNNING, "a repaired build can carry it on"
        (told,) = await sweep.query("stalled")
        assert (told["name"], told["fault"]) == ("llm", "its workflow task fails: a mistake of this build")

        async def ended() -> bool:
            return await status(world) is WorkflowExecutionStatus.TERMINATED

        await until(ended)


@pytest.mark.long  # the server waits up to 20 s between attempts of a failed workflow task
async def test_an_endpoint_whose_build_is_repaired_rents_again(
    real_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with real_world() as world:
        await with_machines(world)
        with monkeypatch.context() as build:
            await stuck(world, build)
            await ensure_sweep(world.client, HURRY)
            await until(lambda: not world.market.instances)
        assert world.handle is not None

        async def rents() -> bool:
            await world.handle.signal(
                "report_metrics", {"engine_id": "e", "sequence": time.time_ns(), "sent_at": 0}
            )
            return len(world.market.instances) == 2

        await until(rents)
        assert (await world.client.get_workflow_handle(SWEEP_ID).query("stalled")) in ([], ())


async def test_a_forced_delete_ends_a_stuck_workflow_and_destroys_its_machines(
    real_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with real_world() as world:
        await with_machines(world)
        mine = set(world.market.instances)
        await stuck(world, monkeypatch)
        released = await Control(world.client).release("llm", wait_seconds=60)
        assert released is not None
        assert released.ended
        assert set(released.destroyed) == mine
        assert (released.left, released.fault) == ((), "")
        assert world.market.instances == {}
        assert await status(world) is WorkflowExecutionStatus.TERMINATED


async def test_what_is_terminated_in_the_ui_together_with_the_sweep_is_released(real_world: Any) -> None:
    async with real_world() as world:
        await with_machines(world)
        watchdog = asyncio.create_task(SweepWatchdog(world.client, HURRY, every_seconds=0.3).run())
        try:
            sweep = world.client.get_workflow_handle(SWEEP_ID)

            async def sweeps() -> bool:
                return (await progress_of(world.client, SWEEP_ID)).running

            await until(sweeps)
            await world.handle.terminate("select all, terminate")
            await sweep.terminate("select all, terminate")
            await until(lambda: not world.market.instances, 20)
            await until(sweeps)
        finally:
            watchdog.cancel()


async def test_a_cancelled_sweep_is_started_again(real_world: Any) -> None:
    async with real_world() as world:
        watchdog = SweepWatchdog(world.client, HURRY)
        await watchdog.check()
        sweep = world.client.get_workflow_handle(SWEEP_ID)
        first = (await sweep.describe()).run_id
        await watchdog.check()
        assert (await sweep.describe()).run_id == first, "one that runs is left alone"
        await sweep.cancel()

        async def ended() -> bool:
            return not (await progress_of(world.client, SWEEP_ID)).running

        await until(ended)
        await watchdog.check()
        assert (await progress_of(world.client, SWEEP_ID)).running


async def test_a_sweep_without_progress_is_replaced(real_world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from workflows.sweep import sweep as module

    async with real_world() as world:
        with monkeypatch.context() as build:
            build.setattr(module.SweepWorkflow, "_details", lambda _: 1 / 0)
            spec = SweepSpec(every_seconds=0.5, young_seconds=0.0, stuck_seconds=1.0)
            await ensure_sweep(world.client, spec)
            first = (await world.client.get_workflow_handle(SWEEP_ID).describe()).run_id

            async def fails() -> bool:
                return bool((await progress_of(world.client, SWEEP_ID)).fault)

            await until(fails)
            watchdog = SweepWatchdog(world.client, spec)
            await watchdog.check()
            await asyncio.sleep(1.1)
        await watchdog.check()
        found = await progress_of(world.client, SWEEP_ID)
        assert found.running
        assert found.run_id != first


async def test_new_settings_reach_a_sweep_that_runs(real_world: Any) -> None:
    async with real_world() as world:
        await ensure_sweep(world.client, SweepSpec(young_seconds=0.0))
        await with_machines(world)
        await world.handle.terminate("a mistake")
        await asyncio.sleep(1)
        assert world.market.instances, "the next sweep is five minutes away"
        await ensure_sweep(world.client, HURRY)
        await asyncio.sleep(1)
        assert world.market.instances, "settings are applied only where that is asked for"
        await ensure_sweep(world.client, HURRY, configure=True)
        await until(lambda: not world.market.instances, 20)


BEFORE = StalledEndpoint(name="llm", run_id="a", since=1000.0, fault="it failed")


@pytest.mark.parametrize(
    ("run_id", "completed_at", "before", "since"),
    [
        ("a", 0.0, BEFORE, 1000.0),
        ("a", 990.0, BEFORE, 1000.0),
        ("a", 1010.0, BEFORE, 1300.0),  # it made progress between the two looks
        ("b", 0.0, BEFORE, 1300.0),  # it continued as new
        ("a", 0.0, None, 1300.0),  # never seen before: an outage of the worker is no evidence
    ],
)
def test_only_looks_without_progress_between_them_are_counted(
    run_id: str, completed_at: float, before: StalledEndpoint | None, since: float
) -> None:
    found = Progress(running=True, run_id=run_id, fault="it fails", completed_at=completed_at)
    assert _since("llm", found, before, 1300.0).since == since
