"""What engines tell an endpoint's workflow, and what the workflow shows the world through its memo.

Grown, never shifted: workflows live for months and meet older and newer engines.
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from stoker_wire.base import TolerantModel
from stoker_wire.parsing.limits import (
    ENGINE_ID_BYTES_MAX,
    ERROR_BYTES_MAX,
    LAUNCH_ID_BYTES_MAX,
    METRICS_WORKERS_MAX,
    WORKER_URL_BYTES_MAX,
    shortened,
)
from stoker_wire.states import WorkerState

Load = Annotated[float, Field(ge=0, le=1e18)]
"""A million of the dearest requests. What is beyond is a mistake, and sums of it would end in no number at all."""
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
"""Whole numbers have no end in JSON, floats have."""


def _error(value: Any) -> Any:
    return shortened(value, ERROR_BYTES_MAX) if isinstance(value, str) else value


def _url(value: Any) -> Any:
    """A url over the limit is no url: the others of the batch still count."""
    if not isinstance(value, str):
        return value
    return value if value == shortened(value, WORKER_URL_BYTES_MAX) else ""


ErrorText = Annotated[str, BeforeValidator(_error)]
WorkerUrl = Annotated[str, BeforeValidator(_url)]
LaunchId = Annotated[str, Field(max_length=LAUNCH_ID_BYTES_MAX)]


class Condition(StrEnum):
    """What a worker says about itself."""

    LOADING = "loading"
    READY = "ready"
    ERROR = "error"


class WorkerMetrics(TolerantModel):
    """One worker as one engine knows it."""

    launch_id: LaunchId
    instance_id: int
    condition: Condition
    perf: Load = 0.0
    load: Load = 0.0
    """Load that it holds: reported in flight, plus routed and not yet seen by it."""
    in_flight: Count = 0
    tickets_open: Count = 0
    """Route answers of this engine that the worker has not seen and that have not expired."""
    reported_at: float = 0.0
    """When its last report arrived (the engine's clock); 0: none yet, the engine only speaks of its tickets."""
    loadtime_s: float = 0.0
    url: WorkerUrl = ""
    official: bool = False
    """It is the official package's worker: only the signature of its launch's key opens it."""
    error: ErrorText = ""
    drain_seen: bool = False
    """The engine has seen that the worker drains and gives it out no more."""
    suspect_since: float | None = None
    """Clients said that it does not answer, since then, and it has not reported after that."""
    incarnation: str = Field("", max_length=64)
    """Names the process that all of this is about; empty: not known, or an official worker that loads."""
    started_at: float = 0.0
    """When that process started (the engine's clock), as its age says; 0: not said."""


class MetricsBatch(TolerantModel):
    """What one engine saw of one endpoint since its last batch."""

    engine_id: str = Field(max_length=ENGINE_ID_BYTES_MAX)
    sequence: int = Field(ge=0, lt=2**63)
    """Counts up per engine process: an older or doubled batch is dropped."""
    sent_at: float
    window_s: Seconds = 0.0
    """The time that `arrived_*` covers, ending at `sent_at`."""
    arrived_load: Load = 0.0
    arrived_requests: Count = 0
    queued_load: Load = 0.0
    """Load waiting in this engine's queue now."""
    queued_requests: Count = 0
    oldest_wait_s: Seconds = 0.0
    last_request_at: float | None = None
    urgent: ErrorText = ""
    """Why this batch could not wait, for people; empty for a regular one."""
    workers: tuple[WorkerMetrics, ...] = Field((), max_length=METRICS_WORKERS_MAX)
    listening_since: float = 0.0
    """Since when the engine listens without a pause (its start, or its last wake); 0: not said."""
    stopping: bool = False
    """The engine's last word: it stops. It gives nothing out any more, and who waited asks another; its tickets stay good."""


class Member(TolerantModel):
    """One worker in the memo, as short as can be: the server warns above 2 KiB of memo."""

    l: str  # noqa: E741 - short on purpose
    """Launch id."""
    i: int
    """Instance id; 0 while there is none."""
    g: int
    """Workergroup id."""
    s: WorkerState
    d: bool = False
    """Draining: give it no new request."""
    p: float = 0.0
    """Perf, load/s."""
    u: str = ""
    """Url, while it is ready: lets an engine that just started route at once."""
    c: float = 0.0
    """Price, $/h."""
    k: str = ""
    """Machine kind."""
    t: float = 0.0
    """Since when it is in the state."""
    n: int = 0
    """1 when updated to the newest revision of its workergroup is pending, else 0."""
    e: str = ""
    """Error, shortened."""
    o: int = 0
    """1: the official package's worker. An engine that has not heard its launch's signing key cannot route to it."""
    a: str = ""
    """Where the marketplace says that it is, `host:port,port…`; empty while it has not said."""


class EndpointMemo(TolerantModel):
    """An endpoint as engines read it from `list_workflows`: config, members, why requests wait."""

    v: int = 1
    id: int
    name: str
    owner: str = "default"
    config: dict[str, Any] = {}
    """What differs from EndpointConfig's defaults."""
    groups: tuple[int, ...] = ()
    """Ids of the workergroups; their texts are answered by the `workergroups` query."""
    members: tuple[Member, ...] = ()
    key_version: int = 1
    key_overlap_until: float = 0.0
    """Until then the key of the version before is accepted too."""
    created_at: float = 0.0
    deleting: bool = False
    wait_code: str = ""
    """Why requests wait now, e.g. `booting`, `recruiting`, `no_capacity`, `budget`."""
    wait_reason: str = ""
    wait_until: float | None = None
    changed_at: float = 0.0


class ForeignInstances(TolerantModel):
    """Instances of the marketplace account that carry a label of stoker and that this deployment leaves alone."""

    other_deployments: Count = 0
    """Of other deployments."""
    unowned: Count = 0
    """With labels that name no deployment."""


FOREIGN_KEY = "foreign"
"""Of the sweep's memo; its value is ForeignInstances as JSON object."""

MEMO_KEY = "endpoint"
"""The memo's one key; its value is an EndpointMemo as JSON object."""

SEARCH_ATTRIBUTES: dict[str, str] = {
    "EndpointName": "Keyword",
    "EndpointId": "Int",
    "EndpointState": "Keyword",
    "ReadyWorkers": "Int",
    "TotalWorkers": "Int",
    "DollarsPerHour": "Double",
    "FleetChangedAt": "Datetime",
}
"""Every search attribute that the workflows set; `temporal-dev.yaml` must name the same."""


class DecisionLine(TolerantModel):
    """One line of the decision log: what an operator reads to learn why."""

    at: float
    kind: str
    """`search`, `recruit`, `activate`, `drain`, `stop`, `destroy`, `reboot`, `update`, `wait`, `fail`, `config`, `worker`, `advise`."""
    subject: str = ""
    """Launch id, workergroup or field that the line is about."""
    reason: str
    numbers: dict[str, float] = {}
    level: Annotated[int, Field(ge=0, le=3)] = 0
    """0: what an operator wants; 3: debug. As in the logs API: info0, info1, trace, debug."""
    workergroup_id: int = 0
