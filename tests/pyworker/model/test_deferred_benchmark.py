"""With an initial perf the worker serves before its benchmark, which runs in an idle moment."""

import asyncio

import pytest

from stoker_pyworker import BenchmarkConfig, Body, Form, HandlerConfig, WorkerConfig
from stoker_pyworker.model import deferred_benchmark
from stoker_pyworker.model.deferred_benchmark import TrafficRate
from stoker_pyworker.model.server import supervisor
from stoker_pyworker.server_config import ModelServerConfig
from stoker_wire.workload import AudioWorkload, ConstantWorkload
from tests.pyworker.harness import until


@pytest.fixture
def make_serving(make_worker, model, monkeypatch):
    """A worker that believes that it runs the model server of the harness."""
    monkeypatch.setattr(deferred_benchmark, "_IDLE_SECONDS", 0.1)
    monkeypatch.setattr(
        supervisor.ModelSupervisor, "_port_is_taken", lambda _: asyncio.sleep(0, result=False)
    )

    async def make(route, *, perf, benchmark, **options):
        config = WorkerConfig(
            handlers=[
                HandlerConfig(
                    route=route, allow_parallel_requests=True, benchmark_config=benchmark, **options
                ),
                HandlerConfig(route="/sse", allow_parallel_requests=True),
            ],
            server=ModelServerConfig(command=("sleep", "600"), initial_perf=perf),
        )
        return await make_worker(config)

    return make


BENCHMARK = BenchmarkConfig(dataset=[{"prompt": "x"}], runs=1, concurrency=1, do_warmup=False)


async def test_the_first_request_does_not_wait_for_the_benchmark(make_serving, model):
    worker = await make_serving("/held", perf=7.0, benchmark=BENCHMARK)
    assert worker.runtime.health.perf == 7.0
    await until(lambda: model.answering == 1)  # the benchmark, which the model holds
    await until(lambda: worker.engine.statuses and worker.engine.statuses[-1]["max_perf"] == 7.0)
    assert worker.engine.statuses[-1]["provisional"]
    model.go.set()
    await until(lambda: worker.runtime.health.perf != 7.0)
    await until(lambda: worker.engine.statuses[-1]["max_perf"] == worker.runtime.health.perf)
    assert not worker.engine.statuses[-1]["provisional"]


async def test_a_request_interrupts_the_benchmark(make_serving, model):
    worker = await make_serving("/held", perf=7.0, benchmark=BENCHMARK)
    await until(lambda: model.answering == 1)
    reader, writer = await worker.connect()
    writer.write(worker.raw_request("/sse"))
    assert b'data: {"n":1}' in await reader.readuntil(b'data: {"n":1}')
    await until(lambda: model.cut == 1)  # the benchmark's request
    assert worker.runtime.health.perf == 7.0
    model.go.set()
    await until(lambda: worker.runtime.health.perf != 7.0)
    writer.close()


async def test_a_failing_benchmark_is_no_error_of_a_serving_worker(make_serving, model):
    worker = await make_serving("/teapot", perf=7.0, benchmark=BENCHMARK)
    await until(lambda: any(seen.path == "/teapot" for seen in model.seen))
    assert worker.runtime.health.error == ""
    assert worker.runtime.health.perf == 7.0


async def test_without_a_benchmark_the_initial_perf_counts(make_serving, model):
    worker = await make_serving("/echo", perf=3.0, benchmark=None)
    assert (await worker.post("/echo", {"n": 1})).json() == {"n": 1}
    health = worker.runtime.health
    assert (health.perf, health.provisional) == (3.0, False), "nothing better will come"


@pytest.mark.parametrize(
    ("payload", "rule", "content_type"),
    [
        (Form(model="w", file=("a.wav", b"x" * 32_000, "audio/wav")), AudioWorkload(), "multipart/form-data"),
        (Body(b"\x89PNG" * 100, "image/png"), ConstantWorkload(load=5.0), "image/png"),
    ],
)
async def test_one_declaration_serves_a_route_in_benchmark_and_in_use(
    make_worker, model, payload, rule, content_type
):
    benchmark = BenchmarkConfig(dataset=[payload], runs=1, concurrency=1, do_warmup=False)
    route = HandlerConfig(
        route="/echo", allow_parallel_requests=True, workload_calculator=rule, benchmark_config=benchmark
    )
    worker = await make_worker(handlers=[route])
    measured = next(seen for seen in model.seen if seen.path == "/echo")
    assert measured.headers["content-type"].startswith(content_type)
    assert worker.runtime.health.perf > 0
    answer = await worker.client.post(
        "/echo",
        content=measured.body,
        headers={
            "content-type": measured.headers["content-type"],
            "x-stoker-auth": worker.auth(1000)["ticket"],
        },
    )
    assert answer.status_code == 200
    assert model.seen[-1].body == measured.body


def test_traffic_at_the_servers_limit_sets_the_rate():
    traffic = TrafficRate()
    assert traffic.observe(10.0, busy=True, limited=True, served=100.0) is None
    assert traffic.observe(20.0, busy=True, limited=True, served=300.0) is None
    # 600 load in 20 s
    assert traffic.observe(30.0, busy=True, limited=True, served=700.0) == (30.0, True)
    assert traffic.observe(50.0, busy=True, limited=False, served=800.0) == (5.0, False)


def test_an_idle_moment_ends_the_observation():
    traffic = TrafficRate()
    traffic.observe(10.0, busy=True, limited=True, served=0.0)
    traffic.observe(29.0, busy=False, limited=True, served=500.0)
    assert traffic.observe(31.0, busy=True, limited=True, served=500.0) is None
