"""Bodies with live figures: health, the overview and the last requests."""

from typing import Literal

from stoker_wire.http.openapi import Said


class Healthy(Said):
    """The process is alive."""

    ok: Literal[True]
    engine_id: str


class Readiness(Said):
    """Whether the engine is ready, with the reason if not."""

    ready: bool
    reason: str


class Closed(Said):
    """Number of reported requests that this engine had assigned."""

    success: Literal[True]
    known: int


class HistogramCounts(Said):
    """Durations counted by bucket since the engine's start."""

    counts: list[int]
    """One per bound of `bucket_seconds`, and one for longer durations; not cumulative."""
    seconds: float
    """Sum of the durations."""


class Capacity(Said):
    """Load per second by stage."""

    hot: float
    booting: float
    cold: float


class GpuDollars(Said):
    """$/h of workers whose GPU is billed now."""

    hot: float
    booting: float


class Stages(Said):
    """Number of workers by stage; those that are ending are in none."""

    hot: int
    booting: int
    cold: int
    failed: int


class EndpointFigures(Said):
    """Live figures of an endpoint at this engine."""

    id: int
    name: str
    state: str
    """`active`, `suspended`, `stopped` or `deleting`."""
    health: str
    """`ok`, `idle` (no hot worker and no request), `waiting` (requests and no hot worker), `late` (queue over its
    target), `degraded` (a worker has an error, or none is rented because boots fail), `stopped`, `deleting`, `stuck`
    (no progress, see `fault`)."""
    fault: str
    wait_code: str
    wait_reason: str
    wait_until: float | None
    changed_at: float
    """When the workflow last changed its fleet or config, Unix seconds."""
    workers: dict[str, int]
    """Number of workers by status."""
    stages: Stages
    routable: int
    draining: int
    capacity: Capacity
    outstanding_load: float
    queue_requests: int
    queue_load: float
    queue_oldest_s: float
    queue_expected_s: float | None
    """Null: no worker is routable."""
    dollars_per_hour: GpuDollars
    requests_per_second: float
    """Arrivals of the last minute."""
    load_per_second: float
    arrived_requests: int
    """Since the engine's start."""
    arrived_load: float
    outcomes: dict[str, int]
    waited: HistogramCounts
    """Seconds in the engine's queue."""
    took: HistogramCounts
    """Seconds from assignment to the worker's report of a successful end."""


class Overview(Said):
    """Live figures of all endpoints of the account."""

    at: float
    engine_id: str
    started_at: float
    version: str
    dashboard_url: str
    """Empty: no dashboard is configured."""
    not_ready: str
    """Why the engine is not ready; empty: it is."""
    bucket_seconds: list[float]
    endpoints: list[EndpointFigures]


class RequestRow(Said):
    """A request that ended."""

    request_idx: int
    arrived_at: float
    cost: float
    waited_s: float
    """In the engine's queue."""
    took_s: float
    """At the worker."""
    busy_s: float
    """Of this, in the model; 0: not reported."""
    queued_s: float
    """Of this, in the worker's queue."""
    first_byte_s: float
    """Of this, until the answer's first bytes; 0: not reported."""
    launch_id: str
    gpu: str
    """The worker's GPUs; empty: unknown."""
    outcome: str


class Requests(Said):
    """The last, slowest and failed requests at this engine."""

    recent: list[RequestRow]
    slow: list[RequestRow]
    """Of the last hour."""
    failed: list[RequestRow]
