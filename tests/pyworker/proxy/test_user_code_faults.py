"""Errors of user code, payloads, logs and disks do not stop the worker."""

import asyncio
import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog

from engine.api.worker_api import _check_figures
from stoker_pyworker import BenchmarkConfig, ConfigError, HandlerConfig, WorkerConfig
from stoker_pyworker.config import parse_workload
from stoker_pyworker.logs import _SafeLogger
from stoker_pyworker.model.benchmark import fingerprint
from stoker_pyworker.model.log_file import LogFile
from stoker_pyworker.proxy.hooks import Response, StreamResponse
from stoker_pyworker.reporting.reports import Reporter
from stoker_wire.errors.problem import Problem
from stoker_wire.route import COST_MAX
from stoker_wire.worker_status import WorkerStatus

BENCH = BenchmarkConfig(dataset=[{"prompt": "x"}], runs=1, concurrency=1)


def echo(**options: Any) -> HandlerConfig:
    return HandlerConfig(route="/echo", benchmark_config=BENCH, **options)


async def test_an_absurd_workload_does_not_block_reports(
    make_worker: Any, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine would refuse a report with such a value, and every later report would contain it again."""
    real, refused = Reporter._post, []

    async def post(self: Reporter, pool: Any, path: str, body: bytes) -> bool:
        if path.endswith("/worker_status/"):
            try:
                _check_figures(WorkerStatus.model_validate_json(body))
            except Problem as problem:
                refused.append(problem)
                return False
        return await real(self, pool, path, body)

    monkeypatch.setattr(Reporter, "_post", post)
    worker = await make_worker(
        handlers=[echo(workload_calculator=lambda payload: payload.get("max_tokens", 1))]
    )
    for claimed in (1e30, 10**400):
        assert (await worker.post("/echo", {"max_tokens": claimed})).status_code == 403
    assert (await worker.post("/echo", {"max_tokens": 1})).status_code == 200
    before = len(engine.statuses)
    async with asyncio.timeout(15):
        while len(engine.statuses) == before:
            await asyncio.sleep(0.05)
    assert refused == []


def test_a_workload_over_the_cost_limit_becomes_the_limit() -> None:
    assert [parse_workload(value) for value in (1e30, float("inf"), 10**400)] == [COST_MAX] * 3
    assert [parse_workload(value) for value in (float("nan"), -1, -(10**400), "x", None)] == [None] * 5


async def odd_status(_: Any, __: Any) -> Response:
    return Response(text="x", status="200")  # type: ignore[arg-type]


async def odd_body(_: Any, __: Any) -> Response:
    return Response(body={"a": 1})  # type: ignore[arg-type]


async def odd_header(_: Any, __: Any) -> Response:
    return Response(text="x", headers={"x-said": "\u65e5\u672c"})


async def split_header(_: Any, __: Any) -> Response:
    return Response(text="x", headers={"x-said": "a\r\nset-cookie: b=c"})


async def split_name(_: Any, __: Any) -> Response:
    return Response(text="x", headers={"x-said: a\r\nset-cookie": "b"})


async def split_type(_: Any, __: Any) -> Response:
    return Response(text="x", content_type="text/plain\r\nset-cookie: b=c")


async def split_stream(request: Any, __: Any) -> StreamResponse:
    answer = StreamResponse(headers={"x-said": "a\nb"})
    await answer.prepare(request)
    return answer


async def cancelled(_: Any, __: Any) -> Response:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    "hook",
    [
        odd_status,
        odd_body,
        odd_header,
        split_header,
        split_name,
        split_type,
        split_stream,
        cancelled,
    ],
)
async def test_a_hook_with_an_invalid_response_is_a_500_and_leaves_the_queue(
    make_worker: Any, hook: Any
) -> None:
    worker = await make_worker(handlers=[echo(), HandlerConfig(route="/ndjson", response_generator=hook)])
    worker.client.timeout = 5
    for _ in range(2):
        assert (await worker.post("/ndjson")).status_code == 500
    assert (await worker.post("/echo")).status_code == 200
    assert worker.runtime.counts.held == 0


async def test_a_log_that_cannot_be_written_raises_nothing() -> None:
    class Full:
        def write(self, _: bytes) -> None:
            raise OSError(errno.ENOSPC, "no space left")

        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "no space left")

    processors = [structlog.processors.JSONRenderer(serializer=lambda event, **_: repr(event).encode())]
    log = structlog.wrap_logger(_SafeLogger(Full()), processors=processors)  # type: ignore[arg-type]
    for level in ("debug", "info", "warning", "error", "exception", "critical"):
        getattr(log, level)("event")


def test_a_process_survives_a_full_stdout() -> None:
    code = "import structlog\nfrom stoker_pyworker import logs\nlogs.configure()\nstructlog.get_logger().info('x')"
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run([sys.executable, "-c", code], stdout=full, check=False)
    # Python exits with 120 if it cannot flush stdout
    assert ended.returncode in (0, 120)


async def test_the_workload_of_json_is_calculated_for_any_content_type(make_worker: Any) -> None:
    worker = await make_worker(handlers=[echo(workload_calculator=lambda payload: payload["max_tokens"])])
    ticket = worker.auth(cost=1.0)["ticket"]

    async def status(kind: str, body: bytes) -> int:
        headers = {"X-Stoker-Auth": ticket, "Content-Type": kind}
        answer = await worker.client.post("/echo", content=body, headers=headers)
        return int(answer.status_code)

    assert await status("application/json", b'{"max_tokens": 100000}') == 403
    assert await status("text/plain", b'{"max_tokens": 100000}') == 403
    assert await status("application/octet-stream", b"\x00\x01") == 200, (
        "the workload of other bodies is the ticket's cost"
    )


async def test_a_parser_gets_no_body_that_is_neither_json_nor_a_form(make_worker: Any) -> None:
    worker = await make_worker(handlers=[echo(request_parser=lambda payload: payload)])
    headers = {"X-Stoker-Auth": worker.auth(cost=1.0)["ticket"], "Content-Type": "text/plain"}
    answer = await worker.client.post("/echo", content=b"not json", headers=headers)
    assert answer.status_code == 415


def test_the_fingerprint_changes_with_any_code_of_the_benchmark() -> None:
    class Hundred:
        def count_workload(self) -> int:
            return 100

    class One:
        def count_workload(self) -> int:
            return 1

    async def slow() -> int:
        return max(1, 2)

    async def quick() -> int:
        return min(1, 2)

    def mark(**code: Any) -> str:
        return fingerprint(echo(**code), model=(), gpus=())

    assert mark(payload_class=Hundred) != mark(payload_class=One)
    assert mark(remote_function=slow) != mark(remote_function=quick)
    assert mark(workload_calculator=lambda p: [x * 2 for x in p]) != mark(
        workload_calculator=lambda p: [x * 3 for x in p]
    )
    assert mark(payload_class=One) == mark(payload_class=One)


async def test_a_rotated_log_is_read_to_its_end(tmp_path: Path) -> None:
    path, got = tmp_path / "m.log", []
    path.write_text("one\n")

    async def read() -> None:
        async for line in LogFile(path).lines():
            got.append(line)  # noqa: PERF401 - read while it grows

    task = asyncio.create_task(read())
    await asyncio.sleep(0.05)
    with path.open("a") as file:
        file.write("CUDA error\nhalf a line")
    path.rename(tmp_path / "m.log.1")
    path.write_text("next\n")
    async with asyncio.timeout(5):
        while "next" not in got:
            await asyncio.sleep(0.02)
    task.cancel()
    assert got == ["one", "CUDA error", "half a line", "next"]


async def test_a_failing_lifecycle_exit_does_not_block_the_end_of_the_worker(
    make_worker: Any,
) -> None:
    class Lifecycle:
        async def __aenter__(self) -> None:
            raise RuntimeError("no GPU")

        async def __aexit__(self, *_: object) -> None:
            self.process.terminate()  # type: ignore[attr-defined]  # an error of the user

    worker = await make_worker(lifecycle=Lifecycle(), ready=False)
    await asyncio.sleep(0.3)
    worker.runtime.health.drain("test")
    assert await asyncio.wait_for(worker.task, 10) == 0


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "http://", "http://127.0.0.1/", "ftp://a", "http://[::1", "a"]
)
def test_an_invalid_model_server_url_is_refused(url: str) -> None:
    config = WorkerConfig(model_server_url=url, model_server_port=8000, handlers=[echo()])
    with pytest.raises(ConfigError, match="model_server_url"):
        config.check()
