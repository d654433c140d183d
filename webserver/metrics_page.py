"""Metrics for Prometheus: their declarations, the choice of the page's format, and its text."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client import exposition as classic
from prometheus_client.openmetrics import exposition as open_metrics

from stoker_wire.parsing.numbers import read_number
from webserver.connections import ConnectionLimits, listen

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROTOBUF = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
_MESSAGE = {"proto=io.prometheus.client.metricfamily", "encoding=delimited"}
END = "# EOF\n"
"""The last line of OpenMetrics."""

disable_created_metrics()  # type: ignore[no-untyped-call]
"""Prometheus would store the samples `_created` as metrics of their own."""

_CONNECTIONS = ConnectionLimits(connections_max=64)
_BUCKET_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One metric of a process, for its registry and for the reference page."""

    name: str
    """As queries name it; a counter ends with `_total`."""
    labels: tuple[str, ...] = ()
    about: str

    def counter(self, registry: CollectorRegistry) -> Counter:
        """A counter in the registry."""
        return Counter(self.name, self.about, self.labels, registry=registry)

    def gauge(self, registry: CollectorRegistry) -> Gauge:
        """A gauge in the registry."""
        return Gauge(self.name, self.about, self.labels, registry=registry)

    def histogram(self, registry: CollectorRegistry) -> Histogram:
        """A histogram of seconds in the registry."""
        return Histogram(self.name, self.about, self.labels, registry=registry, buckets=_BUCKET_SECONDS)

    @property
    def kind(self) -> str:
        """The type of the metric, by its name."""
        if self.name.endswith("_total"):
            return "counter"
        return "histogram" if self.name.endswith("_seconds") else "gauge"


def new_registry() -> CollectorRegistry:
    """A registry with the metrics of the process: CPU time, memory, open files, start time."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def preferred(request: web.Request, *, offered: tuple[str, ...] = (OPEN_METRICS, TEXT)) -> str:
    """The content type that `Accept` prefers, of equal ones the first that is offered; else Prometheus text."""
    wanted = dict.fromkeys(offered, 0.0)
    for entry in ",".join(request.headers.getall("Accept", [])).split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        for each in offered:
            if kind == each.partition(";")[0] and (each != PROTOBUF or set(parameters) >= _MESSAGE):
                wanted[each] = max(wanted[each], _quality(parameters))
    best = max(wanted, key=lambda each: wanted[each])
    return best if wanted[best] > 0 else TEXT


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
        page: bytes = open_metrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return page.decode().removesuffix(END)
    return classic.generate_latest(registry).decode()


async def page_of(request: web.Request, registry: CollectorRegistry) -> web.Response:
    """The page of one registry."""
    kind = preferred(request)
    is_open = kind == OPEN_METRICS
    text = await asyncio.to_thread(text_of, registry, in_open_metrics=is_open)
    body = (text + END if is_open else text).encode()
    return web.Response(body=body, headers={"Content-Type": kind})


@asynccontextmanager
async def served_page(registry: CollectorRegistry, host: str, port: int) -> AsyncIterator[str]:
    """Serve the registry at `/metrics`, for a process without a web server of its own. Yields the URL.

    Raises:
        OSError: the address is in use or does not belong to this machine.
    """

    async def page(request: web.Request) -> web.Response:
        return await page_of(request, registry)

    app = web.Application(client_max_size=1024)
    app.router.add_get("/metrics", page)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        server, limiter = await listen(runner, host, port, limits=_CONNECTIONS)
        bound = server.sockets[0].getsockname()[1]
        try:
            yield f"http://{f'[{host}]' if ':' in host else host}:{bound}/metrics"
        finally:
            server.close()
            limiter.close()
    finally:
        await runner.cleanup()
