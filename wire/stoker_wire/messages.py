"""Messages between engines and an endpoint's workflow: metrics to the workflow, and its memo for engines.

Changes are additive: workflows run for months and meet older and newer engines.
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from stoker_wire.base import TolerantModel
from stoker_wire.parsing.limits import (
    ENGINE_ID_BYTES_MAX,
    ERROR_BYTES_MAX,
    KEYS_MAX,
    LAUNCH_ID_BYTES_MAX,
    METRICS_WORKERS_MAX,
    WORKER_URL_BYTES_MAX,
    shortened,
)
from stoker_wire.security.client_key import Priority
from stoker_wire.states import WorkerState

Load = Annotated[float, Field(ge=0, le=1e18)]
"""Up to a million requests of the maximum cost. The limit keeps sums finite."""
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Dollars = Annotated[float, Field(ge=0, le=1e12)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
"""Bounded, because integers in JSON have no size limit."""


def _error(value: Any) -> Any:
    return shortened(value, ERROR_BYTES_MAX) if isinstance(value, str) else value


def _url(value: Any) -> Any:
    """Drop a url over the limit without failing the batch."""
    if not isinstance(value, str):
        return value
    return value if value == shortened(value, WORKER_URL_BYTES_MAX) else ""


ErrorText = Annotated[str, BeforeValidator(_error)]
WorkerUrl = Annotated[str, BeforeValidator(_url)]
LaunchId = Annotated[str, Field(max_length=LAUNCH_ID_BYTES_MAX)]


class Condition(StrEnum):
    """The condition that a worker reports."""

    LOADING = "loading"
    READY = "ready"
    ERROR = "error"


class WorkerMetrics(TolerantModel):
    """One worker, as seen by one engine."""

    launch_id: LaunchId
    instance_id: int
    condition: Condition
    perf: Load = 0.0
    load: Load = 0.0
    """Outstanding load: reported in flight, plus routed and not yet received."""
    in_flight: Count = 0
    waiting: Count | None = None
    """Of these, requests beyond what the worker serves at its full speed; None: it did not say how many that is."""
    tickets_open: Count = 0
    """Unexpired tickets of this engine that the worker has not received."""
    reported_at: float = 0.0
    """Arrival of the last report (engine's clock); 0: no report yet, only the ticket count is known."""
    provisional: bool = False
    """`perf` is the worker's own estimate, which nothing has measured yet."""
    loadtime_s: float = 0.0
    download_s: float = 0.0
    """Part of `loadtime_s`, for the weights; 0: none, or unknown."""
    url: WorkerUrl = ""
    official: bool = False
    """Whether it runs the official package, which checks only the signature made with its launch's key."""
    error: ErrorText = ""
    error_everywhere: bool = False
    """Whether the error would occur on every machine: only another template, model or secret helps."""
    phase: str = Field("", max_length=16)
    """`download`, `load` or `benchmark` while it boots; empty: unknown."""
    drain_seen: bool = False
    """Whether the engine knows that the worker drains, and no longer routes to it."""
    suspect_since: float | None = None
    """Since when clients report that it does not answer, without a report of its own after that."""
    incarnation: str = Field("", max_length=64)
    """Id of the reporting process; empty: unknown, or an official worker that is loading."""
    started_at: float = 0.0
    """Start of that process (engine's clock), from its reported age; 0: unknown."""


class RequestBreak(TolerantModel):
    """A worker broke while it held a request. Names are short because the memo contains them."""

    f: str = Field(max_length=64)
    """Fingerprint of the request."""
    l: LaunchId  # noqa: E741 - short on purpose
    """Launch id of the worker."""
    t: float
    """When the worker broke, Unix seconds."""
    c: Annotated[
        str, BeforeValidator(lambda text: shortened(text, 80) if isinstance(text, str) else text)
    ] = ""
    """Cause."""


REQUEST_BREAKS_MAX = 32
"""Newest breaks that the engines of an endpoint share."""


class KeyUse(TolerantModel):
    """What one named key used since the last batch."""

    key: str = Field(max_length=64)
    """Digest of the key."""
    dollars: Dollars = 0.0
    load: Load = 0.0


class MetricsBatch(TolerantModel):
    """Metrics of one endpoint from one engine since its last batch."""

    engine_id: str = Field(max_length=ENGINE_ID_BYTES_MAX)
    sequence: int = Field(ge=0, lt=2**63)
    """Increases within an engine process; older and duplicate batches are dropped."""
    sent_at: float
    window_s: Seconds = 0.0
    """Length of the window of `arrived_*`, which ends at `sent_at`."""
    arrived_load: Load = 0.0
    arrived_requests: Count = 0
    queued_load: Load = 0.0
    """Load in this engine's queue."""
    queued_requests: Count = 0
    oldest_wait_s: Seconds = 0.0
    last_request_at: float | None = None
    urgent: ErrorText = ""
    """Why the batch was sent at once, for operators; empty for a regular batch."""
    workers: tuple[WorkerMetrics, ...] = Field((), max_length=METRICS_WORKERS_MAX)
    listening_since: float = 0.0
    """Since when the engine runs without a pause (its start, or its last resume); 0: unknown."""
    breaks: tuple[RequestBreak, ...] = Field((), max_length=REQUEST_BREAKS_MAX)
    """Breaks that the endpoint's memo does not contain yet."""
    stopping: bool = False
    """Whether this is the last batch of an engine that shuts down. It routes no more; its tickets remain valid."""
    keys: tuple[KeyUse, ...] = Field((), max_length=KEYS_MAX)
    """Use of the named keys."""


class Member(TolerantModel):
    """One worker in the memo. Names are short because the server warns above 2 KiB of memo."""

    l: str  # noqa: E741 - short on purpose
    """Launch id."""
    i: int
    """Instance id; 0 before it is created."""
    g: int
    """Workergroup id."""
    s: WorkerState
    d: bool = False
    """Draining: route no new request to it."""
    p: float = 0.0
    """Perf, load/s."""
    u: str = ""
    """Url while it is ready, so that a new engine can route at once."""
    c: float = 0.0
    """Price, $/h."""
    k: str = ""
    """Machine kind."""
    t: float = 0.0
    """When it entered the state."""
    n: int = 0
    """1 if an update to the newest revision of its workergroup is pending, else 0."""
    e: str = ""
    """Error, shortened."""
    o: int = 0
    """1: it runs the official package. An engine without its launch's signing key cannot route to it."""
    h: int = 0
    """1: an operator drained it, and it stays out of service until it is resumed."""
    a: str = ""
    """Its address by the marketplace, `host:port,port…`; empty while unknown."""


class MemoKey(TolerantModel):
    """One named key in the memo (`stoker_wire.security.client_key`)."""

    n: str
    """Name."""
    h: str
    """Digest."""
    r: float | None = None
    """Limit of load per second."""
    b: float | None = None
    """Limit of dollars per UTC day."""
    p: Priority = Priority.NORMAL
    t: float = 0.0
    """When it was created."""
    s: float = 0.0
    """Dollars spent on day `d` by all engines, rounded down to a fiftieth of the limit; 0 without a limit."""
    d: int = 0
    """The day of `s`, in days since 1970."""


class EndpointMemo(TolerantModel):
    """An endpoint's config, members and wait reason, which engines read from `list_workflows`."""

    v: int = 1
    id: int
    name: str
    owner: str = "default"
    config: dict[str, Any] = {}
    """The parameters that differ from the defaults of EndpointConfig."""
    groups: tuple[int, ...] = ()
    """Ids of the workergroups; the `workergroups` query returns their contents."""
    members: tuple[Member, ...] = ()
    key_version: int = 1
    key_overlap_until: float = 0.0
    """Until when the previous version of the key is also accepted."""
    created_at: float = 0.0
    deleting: bool = False
    wait_code: str = ""
    """Why requests wait, e.g. `booting`, `recruiting`, `no_capacity`, `budget`."""
    wait_reason: str = ""
    wait_until: float | None = None
    keys: tuple[MemoKey, ...] = ()
    """The named keys."""
    engines: int = Field(1, ge=1)
    """Engines that share the rate limits of the keys."""
    changed_at: float = 0.0
    b: tuple[RequestBreak, ...] = ()
    """The newest breaks of workers by requests, from all engines."""
    bills: float = 0.0
    """Dollars by which the marketplace's bills exceed the estimated costs, two digits; 0: they do not differ notably."""


class ForeignInstances(TolerantModel):
    """Instances that the sweep found and that belong to no endpoint."""

    other_deployments: Count = 0
    """Instances of other deployments."""
    unowned: Count = 0
    """Instances whose labels name no deployment."""
    destroyed: Count = 0
    """Instances of this deployment that the sweep has destroyed, because no endpoint looked after them."""
    destroyed_at: float = 0.0
    """When it last did, Unix seconds; 0: never."""


FOREIGN_KEY = "foreign"
"""Key in the sweep's memo; its value is ForeignInstances as JSON object."""

MEMO_KEY = "endpoint"
"""Key in an endpoint's memo; its value is an EndpointMemo as JSON object."""

SEARCH_ATTRIBUTES: dict[str, str] = {
    "EndpointName": "Keyword",
    "EndpointId": "Int",
    "EndpointState": "Keyword",
    "ReadyWorkers": "Int",
    "TotalWorkers": "Int",
    "DollarsPerHour": "Double",
    "FleetChangedAt": "Datetime",
}
"""The search attributes that the workflows set; `temporal-dev.yaml` must list the same."""


class DecisionLine(TolerantModel):
    """One line of the decision log, written for operators."""

    at: float
    kind: str
    """`search`, `recruit`, `activate`, `drain`, `stop`, `destroy`, `reboot`, `update`, `keep`, `wait`, `fail`, `config`,
    `worker`, `advise`."""
    subject: str = ""
    """Launch id, workergroup or field that the decision concerns."""
    reason: str
    numbers: dict[str, float] = {}
    level: Annotated[int, Field(ge=0, le=3)] = 0
    """0: relevant for operators; 3: debug. In the logs API: info0, info1, trace, debug."""
    workergroup_id: int = 0
