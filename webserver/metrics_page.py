"""A page of metrics for Prometheus: the choice of its format, and its text."""

import asyncio

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client import exposition as classic
from prometheus_client.openmetrics import exposition as open_metrics

from stoker_wire.parsing.numbers import read_number

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
END = "# EOF\n"
"""The last line of OpenMetrics."""


def wants_open_metrics(request: web.Request) -> bool:
    """Whether `Accept` prefers OpenMetrics to Prometheus text, which is the answer to every other client."""
    wanted = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for entry in ",".join(request.headers.getall("Accept", [])).split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        if kind in wanted:
            wanted[kind] = max(wanted[kind], _quality(parameters))
    best, text = wanted.values()
    return best > 0 and best >= text


def _quality(parameters: list[str]) -> float:
    """The weight `q` of a media type (RFC 9110 §12.4.2); 0: the client does not take it."""
    for each in parameters:
        name, _, value = each.partition("=")
        if name.strip() == "q":
            return read_number(value.strip()) or 0.0
    return 1.0


def text_of(registry: CollectorRegistry, *, in_open_metrics: bool) -> str:
    """The samples of a registry, without the end of an OpenMetrics page."""
    if in_open_metrics:
        return open_metrics.generate_latest(registry).decode().removesuffix(END)
    return classic.generate_latest(registry).decode()


async def page_of(request: web.Request, registry: CollectorRegistry) -> web.Response:
    """The page of one registry."""
    asked = wants_open_metrics(request)
    text = await asyncio.to_thread(text_of, registry, in_open_metrics=asked)
    body = (text + END if asked else text).encode()
    return web.Response(body=body, headers={"Content-Type": OPEN_METRICS if asked else TEXT})
