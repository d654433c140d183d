"""The endpoint watcher: endpoints appear, change and disappear; the engine survives an outage of Temporal."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import PayloadCodec
from temporalio.service import RPCError, RPCStatusCode

from engine.app import start_server
from engine.routing.requests.request_queue import QueuedRequest
from engine.settings import Timing
from engine.temporal.endpoint_watcher import EndpointWatcher
from engine.temporal.log_throttle import LogThrottle
from engine.temporal.signal_sender import SignalSender
from stoker_wire.control import SWEEP_ID
from stoker_wire.messages import FOREIGN_KEY
from stoker_wire.security.token import mint_endpoint_key, mint_worker_token
from tests.engine.conftest import ALICE, SECRET, Stage, settings
from tests.engine.fake_endpoint_workflow import until


async def test_an_endpoint_started_directly_on_temporal_is_found(stage: Stage) -> None:
    endpoint = await stage.endpoint(max_workers=7)
    known = stage.server.engine.directory.named(endpoint.name)
    assert (known.id, known.config.max_workers, known.key) == (endpoint.id, 7, endpoint.key)


async def test_a_route_call_finds_an_endpoint_before_the_next_poll(bare_stage: Stage) -> None:
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


async def test_an_ended_endpoint_is_dropped_and_its_held_calls_are_answered(stage: Stage) -> None:
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


async def test_a_terminated_endpoint_is_detected_by_the_full_poll(bare_stage: Stage) -> None:
    timing = Timing(watch_seconds=0.05, watch_full_seconds=0.2, watch_overlap_seconds=0.0)
    server = await bare_stage.start_engine(timing=timing)
    endpoint = await bare_stage.endpoint()
    await endpoint.handle.terminate()
    bare_stage.endpoints.remove(endpoint)
    await until(lambda: server.engine.directory.named(endpoint.name) is None, "the engine drops it")


async def test_a_signal_to_a_closed_workflow_triggers_a_refresh(bare_stage: Stage) -> None:
    timing = Timing(watch_seconds=3600, hold_seconds=0.01)
    server = await bare_stage.start_engine(timing=timing)
    bare_stage.servers = []
    endpoint = await bare_stage.endpoint()
    bare_stage.servers = [server]
    assert "url" not in await endpoint.route()
    await endpoint.handle.terminate()
    bare_stage.endpoints.remove(endpoint)
    known = server.engine.directory.named(endpoint.name)
    known.metrics_batcher.request_urgent("anything", time.time())
    server.engine.signal_sender.flush(known)
    await until(lambda: server.engine.directory.named(endpoint.name) is None, "the engine drops it")


class Flaky:
    """A client whose next polls fail, like a busy or unreachable server."""

    def __init__(self, client: Any, faults: list[Exception]) -> None:
        self._client = client
        self.faults = faults

    def list_workflows(self, *args: Any, **more: Any) -> Any:
        if self.faults:
            raise self.faults.pop()
        return self._client.list_workflows(*args, **more)

    def get_workflow_handle(self, *args: Any, **more: Any) -> Any:
        return self._client.get_workflow_handle(*args, **more)


@pytest.mark.parametrize("code", [RPCStatusCode.RESOURCE_EXHAUSTED, RPCStatusCode.UNAVAILABLE])
async def test_a_failed_poll_keeps_the_known_state_and_readiness_reports_its_age(
    stage: Stage, code: RPCStatusCode
) -> None:
    endpoint = await stage.endpoint()
    now = [time.time()]
    directory = stage.server.engine.directory
    flaky = Flaky(stage.env.client, [])
    watcher = EndpointWatcher(flaky, directory, timing=Timing(), now=lambda: now[0])  # type: ignore[arg-type]
    assert await watcher.poll()
    known = len(directory)

    flaky.faults = [RPCError("busy", code, b"")] * 2
    now[0] += 40
    assert not await watcher.poll()
    assert watcher.is_stale()
    assert len(directory) == known
    assert directory.named(endpoint.name) is not None
    assert not await watcher.poll()
    assert await watcher.poll()
    assert not watcher.is_stale()


async def test_an_engine_without_temporal_starts_unready_and_tells_key_holders_to_retry(
    bare_stage: Stage,
) -> None:
    nowhere = await Client.connect("127.0.0.1:9", lazy=True, data_converter=pydantic_data_converter)
    server = await start_server(settings(), nowhere)
    bare_stage.servers.append(server)
    status, ready = await bare_stage.call("GET", "/readyz")
    assert (status, "not been read" in ready["reason"]) == (503, True)

    key = mint_endpoint_key(SECRET, 5, 1)
    status, answer = await bare_stage.post("/route/", {"endpoint": "llm", "request_idx": 77}, key=key)
    assert (status, answer["request_idx"], "url" in answer) == (200, 77, False)
    assert (await bare_stage.post("/route/", {"endpoint": "llm"}, key="wrong"))[0] == 401
    token = mint_worker_token(SECRET, 5, "aaaaaaaaaaaa")
    status, problem = await bare_stage.post("/worker_status/", {"id": 1, "mtoken": token})
    assert (status, problem["error"]) == (503, "starting")
    status, problem = await bare_stage.post("/api/v0/endptjobs/", {"endpoint_name": "x"}, key=ALICE)
    assert (status, problem["error"]) == (503, "temporal_unavailable")


async def test_a_failed_batch_is_resent_unchanged(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    engine = stage.server.engine
    known = engine.directory.named(endpoint.name)
    signal_sender = SignalSender(
        Unreachable(stage.env.client, failures=1), engine.directory, engine_id="other"
    )  # type: ignore[arg-type]
    known.metrics_batcher.record_arrival(100.0, time.time())
    known.metrics_batcher.request_urgent("test", time.time())
    signal_sender.flush(known)

    async def sent() -> list[dict[str, Any]]:
        return [batch for batch in await endpoint.received() if batch["engine_id"] == "other"]

    batches = await until(sent, "the batch arrives at last")
    await signal_sender.close()
    assert [(b["sequence"], b["arrived_load"], b["urgent"]) for b in batches] == [(1, 100.0, "test")]


async def test_a_fault_of_one_endpoint_does_not_stop_the_others(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, sound = await stage.endpoint(), await stage.endpoint()
    engine = stage.server.engine
    names = [each.name for each in engine.directory]
    assert names.index(broken.name) < names.index(sound.name), "otherwise the test proves nothing"

    def fails(*_: Any) -> None:
        raise ZeroDivisionError("an unlucky figure")

    known = engine.directory.named(broken.name)
    monkeypatch.setattr(known.metrics_batcher, "due", fails)
    monkeypatch.setattr(known, "refresh", fails)
    other = engine.directory.named(sound.name)
    other.metrics_batcher.record_arrival(100.0, time.time())  # sent with the next batch by the loop only
    other.request_queue.add(place := QueuedRequest(7, 1.0, time.time() - 1e5, 1.0))
    other.waiting[7] = place

    async def sent() -> list[dict[str, Any]]:
        return [batch for batch in await sound.received() if batch["arrived_load"]]

    await until(sent, "the other endpoint is signalled")
    await until(lambda: 7 not in other.waiting, "the line behind it is swept")


class Sealing(PayloadCodec):
    """Another deployment's codec, which this engine cannot decode."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload(metadata={"encoding": b"binary/encrypted"}, data=each.SerializeToString())
            for each in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return list(payloads)


async def test_an_undecodable_memo_does_not_hide_other_endpoints(bare_stage: Stage) -> None:
    config = bare_stage.env.client.config()
    converter = replace(config["data_converter"], payload_codec=Sealing())
    sealed = Client(**{**config, "data_converter": converter})
    odd = await sealed.start_workflow(
        "EndpointWorkflow",
        "x",
        id="endpoint/odd",
        task_queue="nobody",
        memo={"endpoint": {"id": 99, "name": "odd"}},
    )
    try:

        async def visible() -> bool:
            found = bare_stage.env.client.list_workflows("WorkflowId = 'endpoint/odd'")
            return bool([each async for each in found])

        await until(visible, "the odd workflow is listed")
        with capture_logs() as logs:
            await bare_stage.start_engine()
            endpoint = await bare_stage.endpoint()
        assert (await endpoint.route())["endpoint"] == endpoint.name
        message = [each for each in logs if each["event"] == "memo_unreadable"]
        assert [each["workflow"] for each in message] == ["endpoint/odd"], "once, not with every poll"
    finally:
        await odd.terminate()


async def test_an_endpoint_missing_from_a_list_is_not_dropped(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A visibility store that is being rebuilt answers every list with no workflows."""
    kept, ended = await stage.endpoint(), await stage.endpoint()
    watcher, directory = stage.server.engine.endpoint_watcher, stage.server.engine.directory

    async def nobody(*_: Any, **__: Any) -> AsyncIterator[Any]:
        return
        yield

    await ended.handle.terminate()
    stage.endpoints.remove(ended)
    monkeypatch.setattr(watcher, "_client", Blind(watcher._client, nobody))
    await watcher._poll_all(time.time())
    assert directory.named(kept.name) is not None
    assert directory.named(ended.name) is None, "its workflow is closed"


class Blind:
    """A Temporal client whose lists are replaced."""

    def __init__(self, client: Client, lists: Any) -> None:
        self.list_workflows = lists
        self.get_workflow_handle = client.get_workflow_handle


async def test_while_temporal_is_down_an_unknown_name_is_not_a_404(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients treat a 404 as final, so it must not be sent while Temporal does not answer."""

    async def down(name: str) -> bool:
        raise RPCError("down", RPCStatusCode.UNAVAILABLE, b"")

    monkeypatch.setattr(stage.server.engine.endpoint_watcher, "refresh", down)
    status, body = await stage.post("/route/", {"endpoint": "made-a-second-ago", "cost": 1}, key=ALICE)
    assert status == 200
    assert "url" not in body
    assert "Temporal does not answer" in body["status"]


def test_an_unreadable_endpoint_is_logged_once_a_minute() -> None:
    now = [0.0]
    throttle = LogThrottle("signal_sender", now=lambda: now[0])
    with capture_logs() as logs:
        for second in range(125):
            now[0] = float(second)
            throttle.log("llm", ValueError("no"))
            if second == 5:
                throttle.log("other", ValueError("no"))
    assert [(each["endpoint"], each["log_level"]) for each in logs] == [
        ("llm", "error"),
        ("other", "error"),
        ("llm", "error"),
        ("llm", "error"),
    ]


class Unreachable:
    """A client whose first signals are lost."""

    def __init__(self, client: Client, *, failures: int) -> None:
        self._client = client
        self.failures = failures

    def get_workflow_handle(self, workflow_id: str) -> Any:
        handle = self._client.get_workflow_handle(workflow_id)
        if self.failures:
            self.failures -= 1
            send, failing = handle.signal, [True]

            async def signal(*args: Any, **more: Any) -> None:
                if failing:
                    failing.pop()
                    raise RPCError("away", RPCStatusCode.UNAVAILABLE, b"")
                await send(*args, **more)

            handle.signal = signal  # type: ignore[method-assign,assignment]
        return handle


async def test_an_unreadable_memo_is_ignored(stage: Stage) -> None:
    good = await stage.endpoint()
    bad = await stage.endpoint()
    await bad.handle.signal("script", {"config": {"max_workers": "many", "newer": 1}})
    await good.script(wait_reason="still read")
    directory = stage.server.engine.directory
    assert directory.named(bad.name).config.max_workers == 16
    assert directory.named(good.name).memo.wait_reason == "still read"


async def test_foreign_instances_of_the_sweeps_memo_are_a_metric(bare_stage: Stage) -> None:
    server = await bare_stage.start_engine(timing=Timing(watch_seconds=0.05, watch_full_seconds=0.1))
    status, text = await bare_stage.call("GET", "/metrics", key=ALICE)
    assert status == 200
    assert "stoker_foreign_instances" not in text
    sweep = await bare_stage.env.client.start_workflow(
        "SweepWorkflow",
        id=SWEEP_ID,
        task_queue="nobody",
        memo={FOREIGN_KEY: {"other_deployments": 3, "unowned": 1}},
    )
    try:
        await until(
            lambda: server.engine.endpoint_watcher.foreign is not None, "the engine reads the sweep's memo"
        )
        _, text = await bare_stage.call("GET", "/metrics", key=ALICE)
        assert 'stoker_foreign_instances{owner="other"} 3' in text
        assert 'stoker_foreign_instances{owner="none"} 1' in text
    finally:
        await sweep.terminate()
