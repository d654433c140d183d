"""A model server that breaks off, and a client that reads slowly: who waits gets an answer, and memory stays bounded."""

import asyncio
import contextlib

import pytest

from stoker_pyworker import BenchmarkConfig, HandlerConfig, WorkerConfig

BENCH = BenchmarkConfig(dataset=[{"prompt": "x"}], runs=1, concurrency=1)
ANSWER_SECONDS = 4


def echo(**options):
    return HandlerConfig(route="/echo", benchmark_config=BENCH, **options)


@contextlib.asynccontextmanager
async def server_that_says(said):
    """A model server that answers /v1 with these bytes and closes; anything else is well."""

    async def serve(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = head.lower().partition("content-length: ")[2].split("\r\n")[0]
                await reader.readexactly(int(length or 0))
                if head.startswith("POST /v1 "):
                    writer.write(said)
                    break
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.mark.parametrize(
    "said",
    [
        b"HTT",
        b"HTTP/1.1 200 OK\r\ncontent-ty",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n",
    ],
)
async def test_a_model_that_closes_before_its_head_is_complete_has_failed(make_worker, said):
    async with server_that_says(said) as port:
        handlers = [echo(), HandlerConfig(route="/v1", allow_parallel_requests=True)]
        worker = await make_worker(WorkerConfig(model_server_port=port, handlers=handlers))
        answer = await asyncio.wait_for(worker.post("/v1"), ANSWER_SECONDS)
        assert (answer.status_code, answer.json()["error"]) == (502, "model_failed")
