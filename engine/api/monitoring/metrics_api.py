"""`GET /metrics` for Prometheus."""

import asyncio

from aiohttp import web

from engine.engine import Engine
from engine.metrics.exposition import parts
from engine.openapi.declarations import ACCOUNT, text
from stoker_wire.http.openapi import handles
from webserver.metrics_page import OPEN_METRICS, TEXT, wants_open_metrics


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
        replies=text("text/plain", "Prometheus text, or OpenMetrics if `Accept` asks for it"),
        refuses=(401,),
    )
    async def handle(self, request: web.Request) -> web.Response:
        """`GET /metrics`."""
        engine, public = self._engine, self._engine.settings.metrics_public
        owner = None if public else engine.accounts.authenticate(request)
        found = list(engine.directory) if owner is None else engine.directory.known_of(owner)
        wanted = wants_open_metrics(request)
        lines = []
        for part in parts(engine, found, open_metrics=wanted):
            lines.append(part)
            await asyncio.sleep(0)
        body = await asyncio.to_thread(_encoded, lines)
        return web.Response(body=body, headers={"Content-Type": OPEN_METRICS if wanted else TEXT})


def _encoded(lines: list[str]) -> bytes:
    return "".join(lines).encode()
