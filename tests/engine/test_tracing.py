"""One trace through client, engine, worker and model server, as a real OTLP receiver gets it."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from stoker_pyworker import BenchmarkConfig, HandlerConfig, WorkerConfig
from stoker_pyworker.environment import Environment
from stoker_pyworker.worker import WorkerRuntime
from stoker_wire.http1.limits import Limits
from stoker_wire.tracing.start import start_tracing
from tests.engine.conftest import ALICE, EndpointDouble, Stage, settings, start_server
from tests.engine.fake_endpoint_workflow import until
from tests.otlp import KEY, Collector, Received, collecting
from tests.pyworker.harness import Model

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRET_PROMPT = "the-secret-prompt"


class Traced:
    """An engine, a worker and a model server in this process, and a collector."""

    def __init__(self, stage: Stage, endpoint: EndpointDouble, model: Model, collector: Collector) -> None:
        self.stage, self.endpoint, self.model, self.collector = stage, endpoint, model, collector
        self.tracings: list[Any] = []

    async def spans(self, service: str, name: str, *, count: int = 1) -> list[Received]:
        """The spans of this name, once there are so many."""
        for tracing in self.tracings:
            await asyncio.to_thread(tracing.provider.force_flush)
        await until(
            lambda: len(self.collector.of(service, name)) >= count, f"{count} spans {name}", seconds=30.0
        )
        return self.collector.of(service, name)

    async def span(self, service: str, name: str) -> Received:
        (found,) = await self.spans(service, name)
        return found


@pytest_asyncio.fixture(loop_scope="session")
async def traced(bare_stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Traced]:
    stage = bare_stage
    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={KEY.replace(' ', '%20')}")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
        engine, pyworker = (start_tracing(f"stoker-{role}", package="x") for role in ("engine", "pyworker"))
        assert engine is not None
        assert pyworker is not None
        stage.servers.append(await start_server(settings(), stage.env.client, tracing=engine))
        endpoint = await stage.endpoint()
        double = endpoint.worker()
        model = await Model().start()
        config = WorkerConfig(
            model_server_url="http://127.0.0.1",
            model_server_port=model.port,
            model_healthcheck_url="/health",
            handlers=[
                HandlerConfig(
                    route="/echo",
                    allow_parallel_requests=False,
                    benchmark_config=BenchmarkConfig(dataset=[{"n": 0}], runs=1, do_warmup=False),
                ),
                HandlerConfig(route="/sse"),
                HandlerConfig(route="/teapot"),
            ],
        )
        environment = Environment(
            container_id=double.instance_id,
            worker_port=0,
            report_addresses=(stage.server.url,),
            master_token=double.token,
            launch_id=double.launch_id,
            drain_seconds_max=5,
        )
        runtime = WorkerRuntime(
            config,
            environment,
            Limits(body_bytes_max=config.body_bytes_max),
            directory=tmp_path,
            tracing=pyworker,
        )
        task = asyncio.ensure_future(runtime.serve("127.0.0.1"))
        await endpoint.script(groups=[1], members=[double.member()])
        known = stage.server.engine.directory.named(endpoint.name)
        await until(lambda: known.candidates, "the worker is ready", seconds=30.0)
        model.seen.clear()
        made = Traced(stage, endpoint, model, collector)
        made.tracings += [engine, pyworker]
        yield made
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await model.stop()
        for tracing in made.tracings:
            await asyncio.to_thread(tracing.close)


async def openai(traced: Traced, payload: Any, headers: dict[str, str]) -> int:
    url = f"{traced.stage.server.url}/openai/{traced.endpoint.name}/echo?api_key={traced.endpoint.key}"
    async with traced.stage.http.post(url, json=payload, headers=headers) as answer:
        await answer.read()
        return answer.status


async def test_a_trace_goes_from_the_client_s_command_to_the_model_server(traced: Traced) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STOKER")} | {
        "STOKER_URL": traced.stage.server.url,
        "STOKER_API_KEY": ALICE,
    }
    payload = json.dumps({"prompt": SECRET_PROMPT})
    command = [
        str(Path(sys.executable).parent / "stoker"),
        "request",
        traced.endpoint.name,
        "/echo",
        payload,
        "--cost",
        "7",
    ]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr

    client = await traced.span("stoker", "stoker.request")
    route = await traced.span("stoker-engine", "stoker.route")
    wait = await traced.span("stoker-engine", "stoker.wait")
    worker = await traced.span("stoker-pyworker", "stoker.worker")
    queue = await traced.span("stoker-pyworker", "stoker.worker.queue")
    model = await traced.span("stoker-pyworker", "stoker.worker.model")
    assert {each.trace_id for each in traced.collector.spans} == {client.trace_id}
    assert client.parent_id == ""
    assert route.parent_id == worker.parent_id == client.span_id
    assert wait.parent_id == route.span_id
    assert queue.parent_id == model.parent_id == worker.span_id
    assert queue.ended_ns <= model.began_ns + 1000
    assert worker.began_ns <= model.began_ns <= model.ended_ns

    ids = {each.attributes.get("stoker.request_id") for each in (client, route, wait, worker)}
    assert len(ids) == 1
    assert int(ids.pop()) > 0
    assert wait.attributes["stoker.endpoint"] == traced.endpoint.name
    assert wait.attributes["stoker.launch_id"] == worker.attributes["stoker.launch_id"] == "aaaaaaaaaaaa"
    assert worker.attributes["http.route"] == "/echo"
    assert worker.attributes["http.response.status_code"] == 200
    assert client.attributes["stoker.outcome"] == "Complete"
    (seen,) = [each for each in traced.model.seen if each.path == "/echo"]
    assert seen.headers["traceparent"].startswith(f"00-{worker.trace_id}-{worker.span_id}-")
    assert traced.collector.authorizations == {KEY}


PROGRAM = """
import asyncio, sys
import stoker
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider(resource=Resource({"service.name": "mine"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)

async def main():
    async with stoker.Serverless() as client:
        endpoint = await client.get_endpoint(sys.argv[1])
        with trace.get_tracer("mine").start_as_current_span("work"):
            async with endpoint.stream("/sse", {"prompt": sys.argv[2]}, cost=1) as stream:
                async for event in stream:
                    break
            try:
                await endpoint.request("/teapot", {"prompt": sys.argv[2]}, cost=1)
            except stoker.ModelError as fault:
                print(type(fault).__name__)

asyncio.run(main())
"""


async def test_a_program_s_own_spans_are_the_parents_of_its_requests(traced: Traced) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STOKER")} | {
        "STOKER_URL": traced.stage.server.url,
        "STOKER_API_KEY": ALICE,
    }
    command = [sys.executable, "-c", PROGRAM, traced.endpoint.name, SECRET_PROMPT]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout) == (0, "ModelError\n"), done.stderr
    work = await traced.span("mine", "work")
    stream, failed = await traced.spans("mine", "stoker.request", count=2)
    workers = await traced.spans("stoker-pyworker", "stoker.worker", count=2)
    assert {each.parent_id for each in (stream, failed)} == {work.span_id}
    assert [each.parent_id for each in workers] == [stream.span_id, failed.span_id]
    assert (stream.attributes["stoker.outcome"], stream.is_error) == ("Cancelled", False)
    assert (failed.attributes["error.type"], failed.is_error) == ("ModelError", True)
    assert workers[0].attributes["stoker.outcome"] == "Cancelled"
    assert workers[1].attributes["http.response.status_code"] == 418
    assert SECRET_PROMPT.encode() not in traced.collector.raw


async def test_a_call_through_the_openai_door_joins_the_client_s_trace(traced: Traced) -> None:
    sent = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=one", "baggage": "user=alice"}
    assert await openai(traced, {"prompt": SECRET_PROMPT}, sent) == 200
    door = await traced.span("stoker-engine", "stoker.openai")
    wait = await traced.span("stoker-engine", "stoker.wait")
    worker = await traced.span("stoker-pyworker", "stoker.worker")
    await traced.span("stoker-pyworker", "stoker.worker.model")
    assert (door.trace_id, door.parent_id) == (TRACE, PARENT)
    assert (worker.trace_id, worker.parent_id, wait.parent_id) == (TRACE, door.span_id, door.span_id)
    assert door.attributes["http.response.status_code"] == 200
    assert door.attributes["stoker.request_id"] == wait.attributes["stoker.request_id"]
    (seen,) = [each for each in traced.model.seen if each.path == "/echo"]
    assert seen.headers["traceparent"].startswith(f"00-{TRACE}-{worker.span_id}-")
    assert seen.headers["tracestate"] == "vendor=one"
    for secret in (SECRET_PROMPT, traced.endpoint.key, ALICE, "alice", "api_key"):
        assert secret.encode() not in traced.collector.raw


@pytest.mark.parametrize(
    "sent",
    [
        [("traceparent", "nonsense")],
        [("traceparent", f"00-{'0' * 32}-{PARENT}-01")],
        [("traceparent", f"00-{TRACE}-{PARENT}-01"), ("traceparent", f"00-{TRACE}-{PARENT}-00")],
        [("traceparent", f"ff-{TRACE}-{PARENT}-01"), ("tracestate", "=;,é")],
        [("traceparent", f"00-{TRACE}-{PARENT}-01-{'x' * 4000}")],
        [("tracestate", ",".join(f"k{n}=v" for n in range(900))), ("baggage", "a=" + "%00" * 2000)],
        [("baggage", ",".join(f"k{n}=v{n}" for n in range(600)))],
    ],
    ids=["text", "zero", "twice", "version", "long", "states", "baggage"],
)
async def test_hostile_trace_fields_begin_a_new_trace_and_cost_no_request(
    traced: Traced, sent: list[tuple[str, str]]
) -> None:
    url = f"{traced.stage.server.url}/openai/{traced.endpoint.name}/echo"
    headers = [("Authorization", f"Bearer {traced.endpoint.key}"), *sent]
    async with traced.stage.http.post(url, json={"n": 1}, headers=headers) as answer:
        assert answer.status == 200
    worker = await traced.span("stoker-pyworker", "stoker.worker")
    door = await traced.span("stoker-engine", "stoker.openai")
    assert door.trace_id not in {TRACE, "0" * 32}
    assert (worker.trace_id, worker.parent_id) == (door.trace_id, door.span_id)
    (seen,) = [each for each in traced.model.seen if each.path == "/echo"]
    assert seen.headers["traceparent"].startswith(f"00-{door.trace_id}-{worker.span_id}-")


async def test_a_refused_call_is_an_error_with_its_code_and_a_wrong_key_makes_no_span(traced: Traced) -> None:
    url = f"{traced.stage.server.url}/openai/{traced.endpoint.name}/echo"
    async with traced.stage.http.post(url, json={}, headers={"Authorization": "Bearer no-key"}) as answer:
        assert answer.status == 401
    status, _ = await traced.stage.post(
        "/route/", {"endpoint": traced.endpoint.name, "api_key": "no", "cost": 1}
    )
    assert status == 401
    headers = {"Authorization": f"Bearer {traced.endpoint.key}", "X-Stoker-Cost": "much"}
    async with traced.stage.http.post(url, json={}, headers=headers) as answer:
        assert answer.status == 400
    door = await traced.span("stoker-engine", "stoker.openai")
    assert door.is_error
    assert door.attributes["error.type"] == "invalid_args"
    assert [each for each in traced.collector.spans if each.service == "stoker-engine"] == [door]
    assert all(each.events == 0 for each in traced.collector.spans), "no text of an exception"
