"""When a worker becomes ready, and when it reports an error of its model."""

import asyncio
import json

import pytest

from stoker_pyworker import BenchmarkConfig, HandlerConfig, LogActionConfig, WorkerConfig
from stoker_pyworker.model import readiness
from stoker_pyworker.model.benchmark import CACHE_FILE, fingerprint
from tests.pyworker.harness import Model, handlers, until

ACTIONS = LogActionConfig(on_load=["model ready"], on_error=["CUDA error"], on_info=["download"])


async def test_a_log_line_makes_it_ready_even_if_the_file_is_created_later(make_worker, tmp_path, engine):
    log = tmp_path / "model.log"
    worker = await make_worker(model_log_file=str(log), log_action_config=ACTIONS, ready=False)
    answer = await worker.post("/echo")
    assert (answer.status_code, answer.json()["error"]) == (503, "worker_loading")
    assert "retry-after" in answer.headers
    log.write_text("starting\nthe model re")
    with log.open("a") as file:
        file.write("ady? no: model")
        file.flush()
        file.write(" ready on port 8000\n")
    await worker.ready()
    await until(lambda: engine.statuses[-1]["max_perf"] > 0)
    assert (await worker.post("/echo")).status_code == 200


async def test_a_log_line_alone_does_not_make_it_ready_while_the_probe_fails(make_worker, tmp_path, model):
    model.healthy = False
    log = tmp_path / "model.log"
    log.write_text("model ready\n")
    worker = await make_worker(
        model_log_file=str(log), log_action_config=ACTIONS, model_healthcheck_url="/health", ready=False
    )
    await until(lambda: sum(seen.path == "/health" for seen in model.seen) >= 2)
    assert worker.runtime.health.refusal is not None
    model.healthy = True
    await worker.ready()


async def test_a_probe_alone_makes_it_ready(make_worker, model, engine):
    model.healthy = False
    worker = await make_worker(model_healthcheck_url="/health", ready=False)
    await until(lambda: sum(seen.path == "/health" for seen in model.seen) >= 2)
    assert not worker.runtime.health.ready
    model.healthy = True
    await worker.ready()
    await until(lambda: engine.statuses and engine.statuses[-1]["loadtime"] > 0)


async def test_without_log_and_probe_a_server_that_accepts_connections_is_ready(make_worker, model):
    port = model.port
    await model.stop()
    worker = await make_worker(ready=False)
    answer = await worker.client.get("/healthz")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    late = await Model().start(port)
    await worker.ready()
    assert (await worker.client.get("/healthz")).status_code == 200
    await worker.stop()
    await late.stop()


def says(log, line):
    with log.open("a") as file:
        file.write(line + "\n")


@pytest.fixture
def probing(monkeypatch):
    """Shorten the probe intervals."""
    monkeypatch.setattr(readiness, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(readiness, "_RECHECK_SECONDS", 0.02)
    monkeypatch.setattr(readiness, "_LOADING_POLL_SECONDS", 0.01)
    monkeypatch.setattr(readiness, "_PROBE_SECONDS_MAX", 0.1)


async def watched(make_worker, tmp_path, **options):
    log = tmp_path / "model.log"
    log.write_text("model ready\n")
    return log, await make_worker(model_log_file=str(log), log_action_config=ACTIONS, **options)


def probes(model):
    return sum(seen.path == "/health" for seen in model.seen)


async def test_an_error_line_is_ignored_while_the_probe_succeeds(
    make_worker, tmp_path, engine, model, probing
):
    log, worker = await watched(make_worker, tmp_path, model_healthcheck_url="/health")
    before = probes(model)
    says(log, "Traceback: CUDA error while sampling with temperature -7")
    await until(lambda: probes(model) >= before + 3)
    assert (await worker.post("/echo")).status_code == 200
    await until(lambda: engine.finished)
    assert [status["error_msg"] for status in engine.statuses if status["error_msg"]] == []


async def test_an_error_line_is_reported_with_the_probe_that_confirms_it(
    make_worker, tmp_path, engine, model, probing
):
    log, worker = await watched(make_worker, tmp_path, model_healthcheck_url="/health")
    model.healthy = False
    says(log, "CUDA error: out of memory")
    await until(lambda: engine.statuses and "CUDA error: out of memory" in engine.statuses[-1]["error_msg"])
    assert "/health with status 500" in engine.statuses[-1]["error_msg"]
    model.healthy = True
    await until(lambda: engine.statuses[-1]["error_msg"] == "")
    assert (await worker.post("/echo")).status_code == 200


async def test_without_a_health_path_a_benchmark_request_verifies_an_error_line(
    make_worker, tmp_path, engine, model, probing
):
    log, _ = await watched(make_worker, tmp_path)
    before = sum(seen.path == "/echo" for seen in model.seen)
    says(log, "CUDA error: one request was odd")
    await until(lambda: sum(seen.path == "/echo" for seen in model.seen) == before + 1)
    assert [status["error_msg"] for status in engine.statuses if status["error_msg"]] == []
    model.broken = True  # accepts connections, but every request fails
    says(log, "CUDA error: device lost")
    await until(lambda: engine.statuses and "device lost" in engine.statuses[-1]["error_msg"])
    assert "benchmark request" in engine.statuses[-1]["error_msg"]


async def test_an_error_line_while_loading_is_reported_without_a_probe(make_worker, tmp_path, engine):
    log = tmp_path / "model.log"
    log.write_text("CUDA error: out of memory\n")
    await make_worker(model_log_file=str(log), log_action_config=ACTIONS, ready=False)
    await until(lambda: engine.statuses and "out of memory" in engine.statuses[-1]["error_msg"])
    says(log, "model ready")
    await until(lambda: engine.statuses[-1]["error_msg"] == "")


async def test_a_log_that_becomes_unreadable_is_no_error_of_a_ready_worker(make_worker, tmp_path, engine):
    log, worker = await watched(make_worker, tmp_path)
    log.unlink()
    log.mkdir()
    await asyncio.sleep(0.3)  # several polls of the log
    assert (await worker.post("/echo")).status_code == 200
    await until(lambda: engine.finished)
    assert [status["error_msg"] for status in engine.statuses if status["error_msg"]] == []


async def test_a_rotated_or_truncated_log_is_read_from_its_start(
    make_worker, tmp_path, engine, model, probing
):
    log = tmp_path / "model.log"
    log.write_text("model ready\n" * 100)
    await make_worker(model_log_file=str(log), log_action_config=ACTIONS, model_healthcheck_url="/health")
    model.healthy = False
    log.rename(tmp_path / "model.log.1")
    log.write_text("CUDA error: one\n")
    await until(lambda: engine.statuses and "one" in engine.statuses[-1]["error_msg"])
    # Truncate in place, as a shell redirection does.
    log.write_text("CUDA error: 2\n")
    await until(lambda: engine.statuses[-1]["error_msg"].endswith("CUDA error: 2"))


async def test_a_later_probe_error_is_reported_and_cleared(make_worker, model, engine):
    worker = await make_worker(model_healthcheck_url="/health")
    model.healthy = False
    worker.runtime.startup.probe.recheck()
    await until(lambda: engine.statuses and "status 500" in engine.statuses[-1]["error_msg"])
    model.healthy = True
    await until(lambda: engine.statuses[-1]["error_msg"] == "")


async def test_the_benchmark_runs_once_per_model_and_disk(make_worker, model, tmp_path):
    def benchmarks():
        return sum(seen.path == "/echo" for seen in model.seen)

    worker = await make_worker()
    first = worker.runtime.health.perf
    # One warm-up request and one run.
    assert benchmarks() == 2
    assert json.loads((tmp_path / CACHE_FILE).read_bytes())["perf"] == first
    again = await make_worker()
    assert again.runtime.health.perf == first
    assert benchmarks() == 2
    await make_worker(model_name="another model")
    assert benchmarks() == 4


@pytest.mark.parametrize(
    "kept", [b"", b"{", b'{"perf": "fast"}', b"123.0", b'{"fingerprint":"x","perf":0,"at":0}']
)
async def test_an_invalid_benchmark_cache_is_measured_again(make_worker, tmp_path, kept):
    (tmp_path / CACHE_FILE).write_bytes(kept)
    worker = await make_worker()
    assert worker.runtime.health.perf > 0
    assert json.loads((tmp_path / CACHE_FILE).read_bytes())["perf"] == worker.runtime.health.perf


def test_the_fingerprint_depends_on_model_gpu_settings_and_code():
    def handler(**changes):
        options = {"generator": lambda: {"n": 1}, "runs": 2} | changes
        return HandlerConfig(route="/x", benchmark_config=BenchmarkConfig(**options))

    def other():
        return {"n": 2}

    plain = fingerprint(handler(), model=("m",), gpus=("RTX 4090",))
    assert fingerprint(handler(), model=("m",), gpus=("RTX 4090",)) == plain
    changed = {
        fingerprint(handler(), model=("m2",), gpus=("RTX 4090",)),
        fingerprint(handler(), model=("m",), gpus=("RTX 4090", "RTX 4090")),
        fingerprint(handler(), model=("m",), gpus=("H100",)),
        fingerprint(handler(runs=3), model=("m",), gpus=("RTX 4090",)),
        fingerprint(handler(generator=other), model=("m",), gpus=("RTX 4090",)),
        fingerprint(handler(dataset=[{"n": 1}]), model=("m",), gpus=("RTX 4090",)),
    }
    assert plain not in changed
    assert len(changed) == 6


async def test_a_failed_benchmark_is_an_error_with_the_models_response(make_worker, engine):
    config = WorkerConfig(
        handlers=[HandlerConfig(route="/teapot", benchmark_config=BenchmarkConfig(dataset=[{}], runs=1))]
    )
    worker = await make_worker(config, ready=False)
    await until(lambda: engine.statuses and engine.statuses[-1]["error_msg"])
    assert "short and stout" in engine.statuses[-1]["error_msg"]
    assert engine.statuses[-1]["max_perf"] == 0
    assert (await worker.post("/teapot")).status_code == 503


async def test_a_restarted_model_is_benchmarked_again(make_worker, model, engine, tmp_path):
    log = tmp_path / "model.log"
    log.write_text("model ready\n")
    config = WorkerConfig(
        model_log_file=str(log),
        log_action_config=ACTIONS,
        handlers=[HandlerConfig(route="/held", benchmark_config=BenchmarkConfig(dataset=[{}], runs=1))],
    )
    worker = await make_worker(config, ready=False)
    await until(lambda: model.answering == 1)
    for writer in list(model.writers):
        writer.transport.abort()
    await until(lambda: engine.statuses and engine.statuses[-1]["error_msg"])
    model.go.set()
    with log.open("a") as file:
        file.write("model ready\n")
    await worker.ready()
    await until(lambda: engine.statuses[-1]["max_perf"] > 0 and not engine.statuses[-1]["error_msg"])


async def test_a_benchmark_generator_that_fails_is_an_error(make_worker, engine):
    def broken():
        raise RuntimeError("no prompts here")

    config = WorkerConfig(
        handlers=[HandlerConfig(route="/echo", benchmark_config=BenchmarkConfig(generator=broken))]
    )
    await make_worker(config, ready=False)
    await until(lambda: engine.statuses and "no prompts here" in engine.statuses[-1]["error_msg"])


async def test_perf_is_workload_per_second_of_all_runs(make_worker, model, engine):
    config = WorkerConfig(
        handlers=[
            HandlerConfig(
                route="/echo",
                allow_parallel_requests=True,
                workload_calculator=lambda payload: payload["tokens"],
                benchmark_config=BenchmarkConfig(
                    dataset=[{"tokens": 10}, {"tokens": 30}], runs=3, concurrency=4
                ),
            )
        ]
    )
    worker = await make_worker(config)
    assert worker.runtime.health.perf > 0
    # One warm-up request, then three runs of four concurrent requests.
    tokens = [json.loads(seen.body)["tokens"] for seen in model.seen if seen.path == "/echo"]
    assert sorted(tokens) == [10] * 7 + [30] * 6
    await until(lambda: engine.statuses[-1]["max_perf"] > 0)
    assert engine.statuses[-1]["concurrency"] == 4


async def test_a_remote_function_needs_no_model_server(make_worker, model):
    async def add(a, b):
        return a + b

    config = WorkerConfig(
        handlers=[
            HandlerConfig(
                route="/remote/add",
                remote_function=add,
                is_remote_dispatch=True,
                benchmark_config=BenchmarkConfig(dataset=[{"a": 1, "b": 2}], runs=1),
            )
        ]
    )
    await model.stop()
    worker = await make_worker(config)
    assert (await worker.post("/remote/add", {"a": 20, "b": 22})).json() == {"result": 42}
    assert (await worker.post("/remote/add", {"a": 20})).status_code == 500


async def test_a_lifecycle_is_entered_at_start_and_exited_at_the_end(make_worker):
    events = []

    class Lifecycle:
        async def __aenter__(self):
            events.append("entered")

        async def __aexit__(self, *_):
            events.append("left")

    worker = await make_worker(handlers=handlers(), lifecycle=Lifecycle())
    assert events == ["entered"]
    worker.runtime.health.drain("test")
    await worker.task
    assert events == ["entered", "left"]


async def test_the_worker_works_without_a_gpu(worker, engine):
    await until(lambda: engine.statuses)
    assert isinstance(engine.statuses[-1]["gpus"], list)
    assert worker.runtime.health.ready
