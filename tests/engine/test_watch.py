"""The watch on Temporal: endpoints come, change and go; and an engine outlives Temporal's absence."""

import asyncio
import time
from typing import Any

import pytest
from temporalio.service import RPCError, RPCStatusCode

from engine.settings import Timing
from engine.watch import Watch
from stoker_wire.token import mint_endpoint_key
from tests.engine.conftest import SECRET, Stage
from tests.engine.standin import until


async def test_an_endpoint_started_directly_on_temporal_is_found(stage: Stage) -> None:
    endpoint = await stage.endpoint(max_workers=7)
    known = stage.server.engine.directory.named(endpoint.name)
    assert (known.id, known.config.max_workers, known.key) == (endpoint.id, 7, endpoint.key)


async def test_a_route_call_finds_an_endpoint_that_the_watch_has_not_seen_yet(bare_stage: Stage) -> None:
    await bare_stage.start_engine(timing=Timing(watch_seconds=3600, hold_seconds=0.01))
    server, bare_stage.servers = bare_stage.servers[0], []
    endpoint = await bare_stage.endpoint()
    bare_stage.servers = [server]
    assert server.engine.directory.named(endpoint.name) is None
    answer = await endpoint.route()
    assert answer["endpoint"] == endpoint.name


async def test_a_changed_config_and_a_rotated_key_are_read(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    await endpoint.ready(endpoint.worker())
    await endpoint.script(config={"max_queue_time": 3.0}, key_version=2)
    known = stage.server.engine.directory.named(endpoint.name)
    assert known.config.max_queue_time == 3.0
    asked = {"endpoint": endpoint.name}
    assert (await stage.post("/route/", asked, key=endpoint.key))[0] == 401
    assert (await stage.post("/route/", asked, key=mint_endpoint_key(SECRET, endpoint.id, 2)))[0] == 200


async def test_an_endpoint_that_ends_is_dropped_and_who_waits_is_told(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    asked = {"endpoint": endpoint.name, "api_key": endpoint.key}
    call = asyncio.ensure_future(stage.post("/route/", asked))
    await endpoint.lined_up(1)
    await endpoint.script(deleting=True)
    await endpoint.handle.signal("end")
    directory = stage.server.engine.directory
    await until(lambda: directory.named(endpoint.name) is None, "the engine drops it")
    status, problem = await call
    assert (status, problem["error"]) == (404, "endpoint_deleted")
    assert (await stage.post("/route/", asked))[0] == 404
    stage.endpoints.remove(endpoint)


async def test_an_endpoint_that_was_terminated_is_noticed_by_the_full_look(bare_stage: Stage) -> None:
    timing = Timing(watch_seconds=0.05, watch_full_seconds=0.2, watch_overlap_seconds=0.0)
    server = await bare_stage.start_engine(timing=timing)
    endpoint = await bare_stage.endpoint()
    await endpoint.handle.terminate()
    bare_stage.endpoints.remove(endpoint)
    await until(lambda: server.engine.directory.named(endpoint.name) is None, "the engine drops it")


async def test_signalling_a_closed_workflow_makes_the_engine_look(bare_stage: Stage) -> None:
    timing = Timing(watch_seconds=3600, hold_seconds=0.01)
    server = await bare_stage.start_engine(timing=timing)
    bare_stage.servers = []
    endpoint = await bare_stage.endpoint()
    bare_stage.servers = [server]
    assert "url" not in await endpoint.route()
    await endpoint.handle.terminate()
    bare_stage.endpoints.remove(endpoint)
    known = server.engine.directory.named(endpoint.name)
    known.pulse.urge("anything", time.time())
    server.engine.herald.poke(known)
    await until(lambda: server.engine.directory.named(endpoint.name) is None, "the engine drops it")


class Flaky:
    """A client whose next looks fail, as a server does that is busy or away."""

    def __init__(self, client: Any, faults: list[Exception]) -> None:
        self._client = client
        self.faults = faults

    def list_workflows(self, *args: Any, **more: Any) -> Any:
        if self.faults:
            raise self.faults.pop()
        return self._client.list_workflows(*args, **more)


@pytest.mark.parametrize("code", [RPCStatusCode.RESOURCE_EXHAUSTED, RPCStatusCode.UNAVAILABLE])
async def test_a_look_that_fails_keeps_what_is_known_and_readiness_says_how_old_it_is(
    stage: Stage, code: RPCStatusCode
) -> None:
    endpoint = await stage.endpoint()
    now = [time.time()]
    directory = stage.server.engine.directory
    flaky = Flaky(stage.env.client, [])
    watch = Watch(flaky, directory, timing=Timing(), now=lambda: now[0])  # type: ignore[arg-type]
    assert await watch.look()
    known = len(directory)

    flaky.faults = [RPCError("busy", code, b"")] * 2
    now[0] += 40
    assert not await watch.look()
    assert watch.stale()
    assert len(directory) == known
    assert directory.named(endpoint.name) is not None
    assert not await watch.look()
    assert await watch.look()
    assert not watch.stale()


async def test_a_memo_that_this_engine_cannot_read_is_left_alone(stage: Stage) -> None:
    good = await stage.endpoint()
    bad = await stage.endpoint()
    await bad.handle.signal("script", {"config": {"max_workers": "many", "newer": 1}})
    await good.script(wait_reason="still read")
    directory = stage.server.engine.directory
    assert directory.named(bad.name).config.max_workers == 16
    assert directory.named(good.name).memo.wait_reason == "still read"
