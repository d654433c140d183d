"""A machine that slept blames neither its model nor its clients on waking. A blocked event loop stands for the sleep."""

import asyncio
import time

from stoker_pyworker import BenchmarkConfig, HandlerConfig
from stoker_pyworker.model import benchmark, model_process
from stoker_pyworker.model.model_process import ModelProcess
from stoker_wire.http1 import server
from stoker_wire.http1.limits import Limits
from tests.pyworker.harness import until


async def test_a_benchmark_is_repeated_if_the_machine_slept_during_it(monkeypatch, make_worker):
    monkeypatch.setattr(benchmark, "_SUSPENDED_SECONDS", 0.5)
    runs = []

    def payload():
        runs.append(time.monotonic())
        if len(runs) == 1:
            time.sleep(1.0)
        return {"n": len(runs)}

    worker = await make_worker(
        handlers=[
            HandlerConfig(
                route="/echo",
                workload_calculator=lambda _: 100.0,
                benchmark_config=BenchmarkConfig(generator=payload, runs=1, do_warmup=False),
            )
        ],
    )
    assert len(runs) == 2
    assert worker.runtime.health.perf > 100, "100 load in a run that took a second would be less"


async def test_no_connection_expires_right_after_a_sleep(monkeypatch, make_worker):
    monkeypatch.setattr(server, "_ABSENT_SECONDS", 0.5)
    worker = await make_worker(limits=Limits(head_seconds_max=1.0))
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.runtime.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: w\r\n")
    await writer.drain()
    await asyncio.sleep(0.05)  # the server has read it
    time.sleep(1.5)  # noqa: ASYNC251 - the machine sleeps, longer than a head may take
    await asyncio.sleep(0.6)  # two ticks of the server
    writer.write(b"Connection: close\r\n\r\n")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200"), answer
    writer.close()


async def test_a_model_that_was_being_started_gets_its_time_after_a_sleep(monkeypatch, tmp_path):
    log = tmp_path / "model.log"
    log.write_text("Traceback: the first attempt failed\n")
    monkeypatch.setattr(model_process, "_ABSENT_SECONDS", 0.5)
    monkeypatch.setattr(model_process, "_ALONE_SECONDS", 1.0)
    monkeypatch.setattr(model_process, "_BUSY_SECONDS", 1.0)

    async def refuses() -> bool:
        return False

    process = ModelProcess(log, accepts_connections=refuses)
    assert await process._exit_message() == ""
    time.sleep(1.5)  # noqa: ASYNC251 - the machine sleeps
    assert await process._exit_message() == "", "no process could start a model meanwhile"
    said = []

    async def ask():
        while not said:
            if message := await process._exit_message():
                said.append(message)
            await asyncio.sleep(0.2)

    asking = asyncio.create_task(ask())
    await until(lambda: said)
    await asking
    assert "the first attempt failed" in said[0]
