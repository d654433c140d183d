"""`GET /metrics` for Prometheus."""

import asyncio
from collections.abc import Iterator
from typing import TypeVar

from aiohttp import web

from engine.engine import Engine
from engine.metrics import exposition, protobuf
from engine.openapi.declarations import ACCOUNT, text
from stoker_wire.http.openapi import handles
from webserver.metrics_page import OPEN_METRICS, PROTOBUF, TEXT, preferred

Part = TypeVar("Part", str, bytes)


class MetricsApi:
    """The scrape handler. Endpoint names are private to their account, so by default a caller sees its own endpoints.

    A thousand endpoints have several megabytes of metrics. Other tasks run between the parts of the text.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @handles(
        "GET /metrics",
        tag="health",
        security=ACCOUNT,
        replies=text("text/plain", "Prometheus text; OpenMetrics or protobuf if `Accept` asks for it"),
        refuses=(401,),
    )
    async def handle(self, request: web.Request) -> web.Response:
        """`GET /metrics`."""
        engine = self._engine
        found = engine.directory.known_of(engine.accounts.authenticate(request))
        kind = preferred(request, offered=(PROTOBUF, OPEN_METRICS, TEXT))
        if kind == PROTOBUF:
            body = b"".join(await _with_pauses(protobuf.parts(engine, found)))
        else:
            made = await _with_pauses(exposition.parts(engine, found, open_metrics=kind == OPEN_METRICS))
            body = await asyncio.to_thread(_encoded, made)
        return web.Response(body=body, headers={"Content-Type": kind})


async def _with_pauses(parts: Iterator[Part]) -> list[Part]:
    made = []
    for part in parts:
        made.append(part)
        await asyncio.sleep(0)
    return made


def _encoded(lines: list[str]) -> bytes:
    return "".join(lines).encode()
