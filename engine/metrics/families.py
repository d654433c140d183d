"""Every metric of the engine. Values are read from the soft state at scrape time, not counted on the hot path."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Generic, Literal, TypeVar

from engine import endpoint_stats
from engine.engine import Engine
from engine.request_stats import Histogram, WorkerTimes
from engine.routing.endpoint import Endpoint

Subject = TypeVar("Subject", Engine, Endpoint)
Samples = Iterable[tuple[tuple[str, ...], float]]
"""Label values, in the order of the family's labels, and the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family(Generic[Subject]):
    """One metric. A counter's samples are named with `_total`."""

    name: str
    kind: Literal["counter", "gauge"]
    about: str
    labels: tuple[str, ...] = ()
    """Besides `endpoint`, which every metric of an endpoint has."""
    read: Callable[[Subject], Samples]

    @property
    def sample_name(self) -> str:
        """The name that queries use."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramFamily:
    """A histogram of durations of an endpoint's requests or workers."""

    name: str
    about: str
    labels: tuple[str, ...] = ()
    """Besides `endpoint`, one at most: `gpu`, the kind of the workers' GPUs, or `state`."""
    read: Callable[[Endpoint], Iterable[tuple[str, Histogram]]]
    """The histograms, each with the value of the label, if there is one."""


def _one(read: Callable[[Subject], float]) -> Callable[[Subject], Samples]:
    return lambda subject: (((), read(subject)),)


def _counter(name: str, about: str, read: Callable[[Endpoint], float]) -> Family[Endpoint]:
    return Family(name=name, kind="counter", about=about, read=_one(read))


def _gauge(name: str, about: str, read: Callable[[Endpoint], float]) -> Family[Endpoint]:
    return Family(name=name, kind="gauge", about=about, read=_one(read))


def _labelled(
    read: Callable[[Endpoint], dict[str, float]] | Callable[[Endpoint], dict[str, int]],
) -> Callable[[Endpoint], Samples]:
    """One sample per key of a mapping."""
    return lambda endpoint: [((key,), value) for key, value in read(endpoint).items()]


def _routes(endpoint: Endpoint) -> Samples:
    counters = endpoint.counters
    return (
        (("given",), counters.routes_given),
        (("waiting",), counters.routes_waiting),
        (("limited",), counters.routes_limited),
    )


OF_ENDPOINTS: tuple[Family[Endpoint], ...] = (
    Family(
        name="stoker_endpoint_health",
        kind="gauge",
        about="1 for the endpoint's condition: ok, idle, waiting, late, degraded, stopped, deleting or stuck",
        labels=("health",),
        read=lambda e: (((endpoint_stats.health(e),), 1),),
    ),
    Family(
        name="stoker_workers",
        kind="gauge",
        about="Workers by state",
        labels=("state",),
        read=_labelled(endpoint_stats.workers_by_state),
    ),
    _gauge("stoker_workers_max", "The endpoint's max_workers", lambda e: e.config.max_workers),
    _gauge("stoker_workers_routable", "Workers that can take a request now", lambda e: len(e.candidates)),
    _gauge("stoker_workers_load", "Outstanding load of routable workers", lambda e: e.load),
    _gauge("stoker_workers_perf", "Load per second of routable workers", lambda e: e.perf),
    Family(
        name="stoker_capacity_load_per_second",
        kind="gauge",
        about="Load per second by stage: hot, booting, cold; a worker without a measured perf counts with the mean",
        labels=("stage",),
        read=_labelled(endpoint_stats.capacity),
    ),
    Family(
        name="stoker_gpu_dollars_per_hour",
        kind="gauge",
        about="Price of the workers whose GPU is billed, by stage: hot, booting; without storage",
        labels=("stage",),
        read=_labelled(endpoint_stats.gpu_dollars_per_hour),
    ),
    Family(
        name="stoker_gpu_dollars",
        kind="counter",
        about="Dollars of the same workers since this engine's start; every engine counts the whole fleet",
        labels=("stage",),
        read=_labelled(lambda e: e.fleet_stats.gpu_dollars(time.time())),
    ),
    _counter(
        "stoker_gpu_dollars_used",
        "Dollars of the GPU time that served requests needed, by load and perf; the rest of `stoker_gpu_dollars_total`"
        " is wasted. Each engine counts its own requests",
        lambda e: e.stats.gpu_dollars_used,
    ),
    _gauge(
        "stoker_gpu_dollars_per_hour_max",
        "The endpoint's budget; +Inf: none",
        lambda e: math.inf if e.config.dollars_per_hour_max is None else e.config.dollars_per_hour_max,
    ),
    _gauge(
        "stoker_bill_difference_dollars",
        "Dollars by which the marketplace's bills exceed the estimated costs; 0 below $1 or a tenth",
        lambda e: e.memo.bills,
    ),
    _gauge("stoker_queue_requests", "Requests queued in this engine", lambda e: len(e.request_queue)),
    _gauge("stoker_queue_load", "Summed cost of the queued requests", lambda e: e.request_queue.load),
    _gauge(
        "stoker_queue_expected_seconds",
        "Expected queue time; +Inf: requests wait and no worker is routable",
        lambda e: e.queue_seconds,
    ),
    _gauge(
        "stoker_queue_target_seconds",
        "The endpoint's target_queue_time",
        lambda e: e.config.target_queue_time,
    ),
    _gauge(
        "stoker_queue_oldest_seconds",
        "Waiting time of the oldest queued request",
        lambda e: endpoint_stats.oldest_wait_seconds(e, time.time()),
    ),
    _counter(
        "stoker_arrived_requests", "Requests that arrived here first", lambda e: e.stats.arrived_requests
    ),
    _counter("stoker_arrived_load", "Their summed cost", lambda e: e.stats.arrived_load),
    Family(
        name="stoker_requests",
        kind="counter",
        about="Requests that ended, by outcome: done, failed, cancelled, rejected, expired, turned_away, unknown, cut_off",
        labels=("outcome",),
        read=_labelled(lambda e: e.stats.outcomes),
    ),
    Family(
        name="stoker_routes",
        kind="counter",
        about="Route calls answered: given a worker, waiting, or limited by the key",
        labels=("outcome",),
        read=_routes,
    ),
    Family(
        name="stoker_signals",
        kind="counter",
        about="Metrics batches sent to the workflow: urgent, regular",
        labels=("kind",),
        read=_labelled(lambda e: e.counters.signals),
    ),
    _counter(
        "stoker_reroutes",
        "Requests that were routed again after a worker was assigned",
        lambda e: e.counters.reroutes,
    ),
    _counter(
        "stoker_waited_seconds",
        "Summed waiting time of assigned requests",
        lambda e: e.counters.waited_seconds,
    ),
    _counter("stoker_worker_reports", "Accepted worker reports", lambda e: e.counters.reports),
    _counter(
        "stoker_places_expired",
        "Queued requests whose client did not ask again",
        lambda e: e.counters.requests_expired,
    ),
    _counter("stoker_tickets_expired", "Tickets that expired unused", lambda e: e.counters.tickets_expired),
)
"""Every one has the label `endpoint`."""


def _by_gpu(name: str, about: str, read: Callable[[WorkerTimes], Histogram]) -> HistogramFamily:
    return HistogramFamily(
        name=name,
        about=about,
        labels=("gpu",),
        read=lambda e: ((kind, read(times)) for kind, times in e.stats.by_gpu.items()),
    )


HISTOGRAMS: tuple[HistogramFamily, ...] = (
    HistogramFamily(
        name="stoker_request_wait_seconds",
        about="Time in the engine's queue, of requests that got a worker",
        read=lambda e: (("", e.stats.waited),),
    ),
    HistogramFamily(
        name="stoker_request_worker_seconds",
        about="From the assignment of a worker to its report of a successful end: worker's queue and model",
        read=lambda e: (("", e.stats.took),),
    ),
    _by_gpu(
        "stoker_request_worker_queue_seconds",
        "Time in the worker's queue, of successful requests whose worker reports it",
        lambda times: times.queued,
    ),
    _by_gpu(
        "stoker_request_model_seconds",
        "Time in the model, of successful requests whose worker reports it",
        lambda times: times.model,
    ),
    _by_gpu(
        "stoker_request_first_byte_seconds",
        "From the arrival at the engine to the answer's first bytes, of successful requests whose worker reports it",
        lambda times: times.first_byte,
    ),
    _by_gpu(
        "stoker_request_seconds",
        "From the arrival at the engine to the worker's report of a successful end",
        lambda times: times.total,
    ),
    HistogramFamily(
        name="stoker_worker_boot_seconds",
        about="Time of a worker in each state on its way to ready; every engine counts the whole fleet",
        labels=("state",),
        read=lambda e: e.fleet_stats.boots.items(),
    ),
)


def _log_lines(engine: Engine) -> Samples:
    record = engine.request_log
    return () if record is None else ((("written",), record.written), (("dropped",), record.dropped))


def _foreign(engine: Engine) -> Samples:
    foreign = engine.endpoint_watcher.foreign
    return () if foreign is None else ((("other",), foreign.other_deployments), (("none",), foreign.unowned))


def _orphans_destroyed(engine: Engine) -> Samples:
    foreign = engine.endpoint_watcher.foreign
    return () if foreign is None else (((), foreign.destroyed),)


def _watch_age(engine: Engine) -> float:
    polled_at = engine.endpoint_watcher.polled_at
    return time.time() - polled_at if polled_at else math.inf


OF_ENGINE: tuple[Family[Engine], ...] = (
    Family(
        name="stoker_build_info",
        kind="gauge",
        about="1; the labels name the engine's version and process",
        labels=("version", "engine"),
        read=lambda engine: (((version("stoker-wire"), engine.engine_id), 1),),
    ),
    Family(
        name="stoker_engine_up_seconds",
        kind="gauge",
        about="Seconds since the start",
        read=_one(lambda engine: time.time() - engine.started_at),
    ),
    Family(
        name="stoker_engine_endpoints",
        kind="gauge",
        about="Known endpoints",
        read=_one(lambda engine: len(engine.directory)),
    ),
    Family(
        name="stoker_engine_held_calls",
        kind="gauge",
        about="Held route calls",
        read=_one(lambda engine: engine.held_calls),
    ),
    Family(
        name="stoker_engine_watch_age_seconds",
        kind="gauge",
        about="Seconds since the last answer of Temporal; +Inf: none yet",
        read=_one(_watch_age),
    ),
    Family(
        name="stoker_engine_watch_failures",
        kind="counter",
        about="Failed polls of Temporal",
        read=_one(lambda engine: engine.endpoint_watcher.failures),
    ),
    Family(
        name="stoker_foreign_instances",
        kind="gauge",
        about="Instances with a stoker label that this deployment does not manage: of other deployments, or of none",
        labels=("owner",),
        read=_foreign,
    ),
    Family(
        name="stoker_orphans_destroyed",
        kind="counter",
        about="Instances that the sweep destroyed, because no endpoint looked after them",
        read=_orphans_destroyed,
    ),
    Family(
        name="stoker_engine_request_log_lines",
        kind="counter",
        about="Lines of the request log: written, dropped",
        labels=("outcome",),
        read=_log_lines,
    ),
)
