"""The PyWorker under calls of every kind, from its own document, and under malformed bytes."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_pyworker import WorkerConfig
from stoker_pyworker.environment import Environment
from stoker_pyworker.worker import WorkerRuntime
from stoker_wire.http1.limits import Limits
from stoker_wire.security.ticket import Ticket, sign_ticket
from stoker_wire.security.token import ticket_key
from tests.fuzz.calls import Call, Server, send
from tests.fuzz.live import live
from tests.fuzz.size import examples
from tests.pyworker.harness import LAUNCH, TOKEN, Engine, Model, handlers, until

ROUTES = {"/echo", "/sse-now", "/ndjson", "/binary", "/gzip", "/empty", "/teapot", "/unserved"}
"""The model's answers that end normally."""


def auth(number: int) -> dict[str, Any]:
    """A valid route answer."""
    ticket = Ticket(e="llm", w=LAUNCH, c=100.0, r=number, n=1, x=time.time() + 3600)
    sealed = sign_ticket(ticket, ticket_key(TOKEN))
    return {"ticket": sealed, "cost": 100.0, "endpoint": "llm", "request_idx": number, "reqnum": 1}


@contextlib.asynccontextmanager
async def worker(folder: Path) -> AsyncIterator[WorkerRuntime]:
    """A ready worker, with its model and its engine."""
    model, engine = await Model().start(), await Engine().start()
    config = WorkerConfig(
        model_server_url="http://127.0.0.1",
        model_server_port=model.port,
        handlers=[one for one in handlers() if one.route in ROUTES],
        max_sessions=0,
    )
    environment = Environment.read(
        {
            "CONTAINER_ID": "101", "REPORT_ADDR": engine.url, "MASTER_TOKEN": TOKEN, "WORKER_PORT": "0",
            "VAST_TCP_PORT_0": "1", "PUBLIC_IPADDR": "127.0.0.1", "STOKER_ENDPOINT": "llm",
        }
    )  # fmt: skip
    runtime = WorkerRuntime(config, environment, Limits(body_bytes_max=100_000), directory=folder)
    # A drain ends the worker; here it continues, so that later calls are answered.
    runtime.management._drain = lambda _: None
    living = asyncio.create_task(runtime.serve("127.0.0.1"))
    await runtime.listening.wait()
    await until(lambda: runtime.health.refusal is None)
    yield runtime
    assert not living.done(), "the worker has ended"
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)
    await engine.stop()
    await model.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with live(lambda: worker(tmp_path_factory.mktemp("worker"))) as (runtime, _):
        address = ("127.0.0.1", runtime.port)
        plain = Call(("GET", "/openapi.json"), "GET", b"/openapi.json", (), b"", False, False)
        answer = msgspec.json.decode(send(address, plain).body)
        tickets = [auth(number) for number in range(1, 400)]
        hints = {"auth_data": tickets, "ticket": [one["ticket"] for one in tickets], "session_auth": tickets}
        yield Server(address, answer, key=TOKEN, hints=hints)


@examples(60, 3000)
@given(data=st.data())
def test_every_call_is_answered_as_documented(server: Server, data: st.DataObject) -> None:
    server.check(data.draw(server.calls(), label="call"))
    server.healthy()
