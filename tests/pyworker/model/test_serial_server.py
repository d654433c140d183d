"""Probes of a model server that serves one request at a time."""

import asyncio
import contextlib
import http.server
import threading
import time

import pytest

from stoker_pyworker import BenchmarkConfig, HandlerConfig, WorkerConfig
from stoker_pyworker.model import readiness
from tests.pyworker.harness import until

PIECES = 40


class Interrupted:
    """Ends a running stream when another request arrives, as the server of llama.cpp can."""

    def __init__(self):
        self.asked = 0
        self.probed = 0
        self.interrupted = 0
        self.streaming = 0
        self.from_first_piece = False

    async def start(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int((head.lower().partition(b"content-length: ")[2] or b"0").split(b"\r\n")[0] or 0)
                await reader.readexactly(length)
                self.asked += 1
                if head.startswith(b"GET"):
                    self.probed += 1
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                    continue
                await self._stream(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _stream(self, writer):
        mine = self.asked
        self.streaming += 1
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(PIECES):
            if self.asked != mine:
                self.interrupted += 1
                break
            writer.write(b"1\r\nx\r\n")
            await asyncio.sleep(0.01)
            if number == 0 and self.from_first_piece:
                mine = self.asked
        writer.write(b"0\r\n\r\n")
        self.streaming -= 1


class OneThread(threading.Thread):
    """A single-threaded server: blocked while it computes, and reads from one open connection until it closes."""

    def __init__(self, seconds):
        super().__init__(daemon=True)
        outer = self
        self.probed = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20

            def answer(self):
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def do_GET(self):
                outer.probed += 1
                self.answer()

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(seconds if b"long" in body else 0)
                self.answer()

            def log_message(self, *_):
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port

    def run(self):
        self.server.serve_forever(poll_interval=0.02)

    def end(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(autouse=True)
def probing(monkeypatch):
    monkeypatch.setattr(readiness, "_POLL_SECONDS", 0.1)
    monkeypatch.setattr(readiness, "_RECHECK_SECONDS", 0.02)
    monkeypatch.setattr(readiness, "_LOADING_POLL_SECONDS", 0.01)
    monkeypatch.setattr(readiness, "_PROBE_SECONDS_MAX", 0.1)


def config(port, *, parallel=False, health="/health"):
    return WorkerConfig(
        model_server_port=port,
        model_healthcheck_url=health,
        handlers=[
            HandlerConfig(
                route="/gen",
                allow_parallel_requests=parallel,
                max_queue_time=None,
                benchmark_config=BenchmarkConfig(dataset=[{"n": 1}], runs=1, concurrency=1, do_warmup=False),
            )
        ],
    )


def errors(engine):
    return [status["error_msg"] for status in engine.statuses if status["error_msg"]]


@pytest.mark.parametrize("parallel", [False, True])
async def test_a_probe_never_cuts_a_stream_short(make_worker, engine, parallel):
    model = await Interrupted().start()
    # With a parallel route, the server may be probed until the first byte of a response.
    model.from_first_piece = parallel
    worker = await make_worker(config(model.port, parallel=parallel))
    await until(lambda: model.probed >= 2)
    for _ in range(3):
        answer = await worker.post("/gen")
        assert answer.text == "x" * PIECES
    assert model.interrupted == 0
    before = model.probed
    await until(lambda: model.probed > before)
    assert errors(engine) == []
    model.server.close()


async def test_a_recheck_waits_for_the_running_request_of_a_serial_server(make_worker, engine):
    model = await Interrupted().start()
    worker = await make_worker(config(model.port))
    asked = asyncio.ensure_future(worker.post("/gen"))
    await until(lambda: model.streaming)
    before = model.probed
    for _ in range(5):
        worker.runtime.startup.probe.recheck()
        await asyncio.sleep(0.02)
    assert (await asked).text == "x" * PIECES
    await until(lambda: model.probed > before)
    assert model.interrupted == 0
    model.server.close()


async def test_a_single_threaded_server_is_healthy_while_it_computes(make_worker, engine):
    # Three unanswered probes take 0.3 s; the request takes three times as long.
    model = OneThread(seconds=1.0)
    model.start()
    worker = await make_worker(config(model.port))
    for _ in range(2):
        assert (await worker.post("/gen", {"long": 1})).status_code == 200
        before = model.probed
        # The server reads from the connection of the request until it is closed.
        await until(lambda before=before: model.probed > before, seconds=3)
    assert errors(engine) == []
    assert worker.runtime.health.refusal is None
    await worker.stop()
    model.end()


async def test_a_parallel_server_is_healthy_during_one_long_computation(make_worker, engine):
    model = OneThread(seconds=1.0)
    model.start()
    worker = await make_worker(config(model.port, parallel=True))
    assert (await worker.post("/gen", {"long": 1})).status_code == 200
    assert errors(engine) == []
    await worker.stop()
    model.end()


async def test_a_server_that_hangs_with_requests_is_detected(make_worker, engine, monkeypatch):
    monkeypatch.setattr(readiness, "_UNANSWERED_BUSY_SECONDS", 0.5)
    model = OneThread(seconds=5.0)
    model.start()
    worker = await make_worker(config(model.port, parallel=True))
    asked = asyncio.ensure_future(worker.post("/gen", {"long": 1}))
    await until(lambda: any("answered no health probe" in error for error in errors(engine)), seconds=4)
    asked.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asked
    await worker.stop()
    model.end()
