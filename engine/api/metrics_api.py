"""`GET /metrics` for Prometheus. Values are read from the soft state at scrape time, not counted on the hot path."""

import asyncio
import time
from collections.abc import Iterable, Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from engine.engine import Engine
from engine.openapi.declarations import ACCOUNT, text
from engine.routing.endpoint import Endpoint
from stoker_wire.openapi import handles

_PER_ENDPOINT = ["endpoint"]


class _EngineCollector(Collector):
    """Reads the metrics of an engine; of one account's endpoints if an owner is given."""

    def __init__(self, engine: Engine, owner: str | None) -> None:
        self._engine = engine
        self._owner = owner

    def _endpoints(self) -> Iterable[Endpoint]:
        directory = self._engine.directory
        return directory if self._owner is None else directory.known_of(self._owner)

    def collect(self) -> Iterator[Metric]:
        """All metrics of the engine and its endpoints."""
        yield from self._of_engine()
        yield from self._counters()
        yield from self._gauges()

    def _of_engine(self) -> Iterator[Metric]:
        engine, watcher = self._engine, self._engine.endpoint_watcher
        age = time.time() - watcher.polled_at if watcher.polled_at else float("inf")
        yield GaugeMetricFamily(
            "stoker_engine_up_seconds", "Seconds since the start", time.time() - engine.started_at
        )
        yield GaugeMetricFamily("stoker_engine_endpoints", "Known endpoints", len(engine.directory))
        yield GaugeMetricFamily("stoker_engine_held_calls", "Held route calls", engine.held_calls)
        yield GaugeMetricFamily(
            "stoker_engine_watch_age_seconds", "Seconds since the last answer of Temporal", age
        )
        yield CounterMetricFamily(
            "stoker_engine_watch_failures", "Failed polls of Temporal", watcher.failures
        )
        if (foreign := watcher.foreign) is not None:
            others = GaugeMetricFamily(
                "stoker_foreign_instances",
                "Instances with a stoker label that this deployment does not manage",
                labels=["owner"],
            )
            others.add_metric(["other"], foreign.other_deployments)
            others.add_metric(["none"], foreign.unowned)
            yield others
        if (record := engine.request_log) is not None:
            lines = CounterMetricFamily(
                "stoker_engine_request_log_lines", "Lines of the request log", labels=["outcome"]
            )
            lines.add_metric(["written"], record.written)
            lines.add_metric(["dropped"], record.dropped)
            yield lines

    def _counters(self) -> Iterator[Metric]:
        routes = CounterMetricFamily("stoker_routes", "Route calls answered", labels=["endpoint", "outcome"])
        signals = CounterMetricFamily(
            "stoker_signals", "Metrics batches for the workflow", labels=["endpoint", "kind"]
        )
        names = {
            "reroutes": ("stoker_reroutes", "Requests that were routed again after a worker was assigned"),
            "waited_seconds": ("stoker_waited_seconds", "Summed waiting time of assigned requests"),
            "reports": ("stoker_worker_reports", "Accepted worker reports"),
            "requests_expired": ("stoker_places_expired", "Queued requests whose client did not ask again"),
            "tickets_expired": ("stoker_tickets_expired", "Tickets that expired unused"),
        }
        plain = {field: CounterMetricFamily(*of, labels=_PER_ENDPOINT) for field, of in names.items()}
        for endpoint in self._endpoints():
            counters = endpoint.counters
            routes.add_metric([endpoint.name, "given"], counters.routes_given)
            routes.add_metric([endpoint.name, "waiting"], counters.routes_waiting)
            routes.add_metric([endpoint.name, "limited"], counters.routes_limited)
            for kind, count in counters.signals.items():
                signals.add_metric([endpoint.name, kind], count)
            for field, family in plain.items():
                family.add_metric([endpoint.name], getattr(counters, field))
        yield routes
        yield signals
        yield from plain.values()

    def _gauges(self) -> Iterator[Metric]:
        workers = GaugeMetricFamily("stoker_workers", "Workers by state", labels=["endpoint", "state"])
        names = {
            "ready": ("stoker_workers_routable", "Workers that can take a request now"),
            "queued": ("stoker_queue_requests", "Requests queued in this engine"),
            "queued_load": ("stoker_queue_load", "Their summed cost"),
            "load": ("stoker_workers_load", "Outstanding load of routable workers"),
            "perf": ("stoker_workers_perf", "Load per second of routable workers"),
            "queue_seconds": (
                "stoker_queue_expected_seconds",
                "Expected queue time; Inf: no worker is routable",
            ),
            "oldest": ("stoker_queue_oldest_seconds", "Waiting time of the oldest queued request"),
        }
        plain = {field: GaugeMetricFamily(*of, labels=_PER_ENDPOINT) for field, of in names.items()}
        now = time.time()
        for endpoint in self._endpoints():
            states: dict[str, int] = {}
            for worker in endpoint.workers.values():
                if worker.listed:
                    states[worker.listing.state.value] = states.get(worker.listing.state.value, 0) + 1
            for state, count in states.items():
                workers.add_metric([endpoint.name, state], count)
            oldest = endpoint.request_queue.oldest
            values = {
                "ready": len(endpoint.candidates),
                "queued": len(endpoint.request_queue),
                "queued_load": endpoint.request_queue.load,
                "load": endpoint.load,
                "perf": endpoint.perf,
                "queue_seconds": endpoint.queue_seconds,
                "oldest": now - oldest.arrived_at if oldest else 0.0,
            }
            for field, value in values.items():
                plain[field].add_metric([endpoint.name], value)
        yield workers
        yield from plain.values()


class _CollectedMetrics(Collector):
    """Metrics that were read before."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """The metrics as they were read."""
        yield from self._families


class MetricsApi:
    """The scrape handler. Endpoint names are private to their account, so by default a caller sees its own endpoints.

    A thousand endpoints have a megabyte of metrics. Reading yields to other tasks; formatting runs in a thread.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @handles(
        "GET /metrics",
        tag="health",
        security=ACCOUNT,
        replies=text("text/plain", "Prometheus text"),
        refuses=(401,),
    )
    async def handle(self, request: web.Request) -> web.Response:
        """`GET /metrics`."""
        public = self._engine.settings.metrics_public
        owner = None if public else self._engine.accounts.authenticate(request)
        families = []
        for family in _EngineCollector(self._engine, owner).collect():
            families.append(family)
            await asyncio.sleep(0)
        body = await asyncio.to_thread(_format, families)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _format(families: list[Metric]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_CollectedMetrics(families))
    return generate_latest(registry)
