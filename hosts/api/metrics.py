"""`GET /metrics`: the marketplace's instances, slots and calls, for Prometheus.

It needs no key: a scraper must not hold the marketplace's key, with which anyone can run commands on this machine.
"""

import time
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version

from aiohttp import web
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hosts.api.http import HOST, Handler
from stoker_wire.http.openapi import Reply, handles
from webserver.metrics_page import Declared, new_registry, page_of

_BUILD = Declared(
    name="stoker_build_info", labels=("version",), about="1; the label names the marketplace's version"
)
_INSTANCES = Declared(
    name="stoker_host_instances",
    labels=("state",),
    about="Instances by state: created, loading, running, rebooting, stopped, exited, offline",
)
_SLOTS = Declared(
    name="stoker_host_slots",
    labels=("machine", "state"),
    about="Slots of each machine kind: free, rented; neither: another kind has its GPU",
)
_CALLS = Declared(
    name="stoker_host_calls_total",
    labels=("method", "route", "status"),
    about="Calls of the API by HTTP status; other: no such route",
)
_SECONDS = Declared(
    name="stoker_host_call_seconds", labels=("method", "route"), about="Duration of the API's calls"
)
DECLARED = (_BUILD, _INSTANCES, _SLOTS, _CALLS, _SECONDS)
_OTHER = "other"


class HostMetrics:
    """The registry of the marketplace. Instances and slots are counted when the page is read."""

    def __init__(self) -> None:
        self.registry = new_registry()
        _BUILD.gauge(self.registry).labels(version("stoker-wire")).set(1)
        self._calls = _CALLS.counter(self.registry)
        self._seconds = _SECONDS.histogram(self.registry)

    def call(self, method: str, route: str, status: int, seconds: float) -> None:
        """A call was answered."""
        self._calls.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)


METRICS: web.AppKey[HostMetrics] = web.AppKey("metrics", HostMetrics)


class _Fleet(Collector):
    def __init__(self, app: web.Application) -> None:
        self._app = app

    def collect(self) -> Iterable[Metric]:
        """Instances and slots as they are now."""
        host = self._app[HOST]
        known = [one.record for one in list(host.instances.values())]  # the page is made in another thread
        states = Counter(record.actual or "created" for record in known)
        instances = GaugeMetricFamily(_INSTANCES.name, _INSTANCES.about, labels=_INSTANCES.labels)
        for state, count in sorted(states.items()):
            instances.add_metric((state,), count)
        yield instances
        rented = {record.offer_id for record in known}
        every = host.catalog.slots.values()
        found = Counter((slot.machine.kind, "free") for slot in host.catalog.free(known))
        found.update((slot.machine.kind, "rented") for slot in every if slot.offer_id in rented)
        slots = GaugeMetricFamily(_SLOTS.name, _SLOTS.about, labels=_SLOTS.labels)
        for labels in sorted(
            (kind, state) for kind in {slot.machine.kind for slot in every} for state in ("free", "rented")
        ):
            slots.add_metric(labels, found[labels])
        yield slots


def add_metrics(app: web.Application) -> None:
    """Count into a registry of the application."""
    metrics = app[METRICS] = HostMetrics()
    metrics.registry.register(_Fleet(app))


@web.middleware
async def measured(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count every answered call by its route: a path or a method of a client's choice is no label."""
    began = time.perf_counter()
    response = await handler(request)
    resource = request.match_info.route.resource
    method, route = (_OTHER, _OTHER) if resource is None else (request.method, resource.canonical)
    request.app[METRICS].call(method, route, response.status, time.perf_counter() - began)
    return response


@handles(
    "GET /metrics",
    replies={
        200: Reply(about="Prometheus text, or OpenMetrics if `Accept` asks for it", content_type="text/plain")
    },
)
async def read_metrics(request: web.Request) -> web.Response:
    """Instances, slots and calls, for Prometheus."""
    return await page_of(request, request.app[METRICS].registry)
