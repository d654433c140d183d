"""Request and reply bodies for the OpenAPI document, where no wire type describes them."""

from collections.abc import Iterable
from copy import copy
from typing import Any, Literal, Optional

from pydantic import BaseModel, ConfigDict, create_model

from controller.query_results import AdviceView, Hosts
from stoker_wire.client_key import KeyLimits, KeyName, Priority
from stoker_wire.endpoint import EndpointConfig, EndpointPatch
from stoker_wire.market import Instance, Offer, Template
from stoker_wire.messages import DecisionLine
from stoker_wire.openapi import Said
from stoker_wire.workergroup import Workergroup


def _optional(name: str, model: type[BaseModel], *, without: Iterable[str] = (), **more: Any) -> Any:
    """The model with all fields optional and nullable; null means not given."""
    fields: dict[str, Any] = {}
    for field_name, known in model.model_fields.items():
        if field_name in without:
            continue
        field = copy(known)
        field.default = None
        field.annotation = Optional[known.annotation]  # type: ignore[assignment] # noqa: UP045 - at run time
        fields[field_name] = (field.annotation, field)
    made = create_model(name, __config__=ConfigDict(extra="ignore"), **fields, **more)
    made.__doc__ = (model.__doc__ or "").splitlines()[0]
    return made


_KEY: dict[str, Any] = {"api_key": (str | None, None)}

NewEndpoint = _optional("NewEndpoint", EndpointPatch, endpoint_name=(str, ...), **_KEY)
EndpointChange = _optional("EndpointChange", EndpointPatch, endpoint_name=(str | None, None), **_KEY)
NewWorkergroup = _optional(
    "NewWorkergroup",
    Workergroup,
    without=["id"],
    endpoint_id=(int | None, None),
    endpoint_name=(str | None, None),
    **_KEY,
)
WorkergroupChange = _optional("WorkergroupChange", Workergroup, without=["id"], **_KEY)


Advised = _optional("Advised", EndpointPatch, tuning=(str | None, None), **_KEY)


class Keyed(BaseModel):
    """The account key may come in the body."""

    api_key: str | None = None


class UnblockHosts(Keyed):
    """The hosts to unblock; without `machine_ids` all."""

    machine_ids: list[int] | None = None


class NamedEndpoint(Keyed):
    """An endpoint by `id`, or by `endpoint`, its name."""

    id: int | None = None
    endpoint: str | None = None
    tail: int | None = None
    """Number of log lines, at most 1000."""


class NamedWorker(NamedEndpoint):
    """A worker of an endpoint, by the id of its instance or by its launch id."""

    worker: int | str


class NamedWorkergroup(Keyed):
    """A workergroup by `id`."""

    id: int
    tail: int | None = None


class RollingUpdate(Keyed):
    """The workergroup whose rolling update starts or is cancelled."""

    workergroup_id: int
    cancel_update: bool | None = None


# replies


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


class EndpointRecord(EndpointConfig):
    """An endpoint in the official format."""

    id: int
    endpoint_name: str
    api_key: str
    user_id: int
    created_at: float
    cold_workers: int
    endpoint_state: Literal["active", "suspended", "stopped", "deleting"]  # type: ignore[assignment]
    auto_delete_in_seconds: None
    auto_delete_due_24h: Literal[False]
    workergroup_ids: list[int]
    broken: str
    """Why the endpoint makes no progress or cannot be read completely; empty: no fault."""


class Endpoints(Said):
    """The account's endpoints."""

    success: Literal[True]
    results: list[EndpointRecord]


class EndpointShown(Said):
    """One endpoint."""

    success: Literal[True]
    result: EndpointRecord


class EndpointMade(Said):
    """The new endpoint's id."""

    success: Literal[True]
    result: int


class EndpointDeleted(Said):
    """The deletion of an endpoint and its workers. Status 202: not begun, or not complete."""

    success: Literal[True]
    msg: str
    deleted_workers: int
    failed_workers: int
    """Workers that are still billed."""
    begun: bool
    destroyed_instances: list[int] = []
    """Instances that a forced delete destroyed."""
    left_instances: list[int] = []


class EndpointDelete(Keyed):
    """Options of a delete."""

    force: bool = False
    """Terminate its workflow and destroy every instance with its label, without draining."""


class KeyRotated(Said):
    """The new key."""

    success: Literal[True]
    api_key: str
    key_version: int


class NewKey(KeyLimits):
    """A named key to create."""

    name: KeyName
    api_key: str | None = None
    """The account's key may come here."""


class KeyChange(KeyLimits):
    """The limits of a named key that change; null removes one."""

    api_key: str | None = None
    """The account's key may come here."""


class KeyMade(Said):
    """The new key. No other answer shows its text."""

    success: Literal[True]
    name: str
    api_key: str


class KeyShown(Said):
    """A named key without its text."""

    name: str
    created_at: float
    load_per_second: float | None
    dollars_per_day: float | None
    priority: Priority
    dollars_today: float
    """Dollars of this UTC day, as far as this engine knows."""


class Keys(Said):
    """The named keys of an endpoint."""

    success: Literal[True]
    keys: list[KeyShown]


class Decisions(Said):
    """The last decisions with their reasons, oldest first."""

    decisions: list[DecisionLine]


class Advice(Said):
    """The plan of an advised config beside the live one."""

    advice: AdviceView


class HostsShown(Said):
    """Blocked hosts with the reasons."""

    hosts: Hosts


class HostsUnblocked(Said):
    """The machine ids that were unblocked."""

    success: Literal[True]
    unblocked: list[int]


class WorkergroupRecord(Workergroup):
    """A workergroup in the official format."""

    endpoint_id: int
    endpoint_name: str
    user_id: int
    created_at: float
    broken: str = ""
    """Why its endpoint does not answer; the other fields are unknown then."""


class Workergroups(Said):
    """The account's workergroups."""

    success: Literal[True]
    results: list[WorkergroupRecord]


class WorkergroupShown(Said):
    """One workergroup."""

    success: Literal[True]
    result: WorkergroupRecord


class WorkergroupMade(Said):
    """The new workergroup's id, and a warning if no offer matches its search now."""

    success: Literal[True]
    id: int
    warning: str | None = None


class NoWorkers(Said):
    """The official reply for a missing endpoint or workergroup."""

    success: bool
    code: str
    error: str
    error_msg: str
    msg: str


class WorkerRow(Said):
    """One worker. Unknown values are 0, never null."""

    id: int
    status: str
    cur_load: float
    new_load: float
    cur_load_rolling_avg: float
    cur_perf: float
    perf: float
    measured_perf: float
    dlperf: float
    reliability: float
    reqs_working: int
    disk_usage: float
    loaded_at: float
    started_at: float
    gpu_name: str
    kind: str
    dph_total: float
    url: str
    address: str
    official: bool
    workergroup_id: int
    endpoint_id: int
    launch_id: str
    draining: bool
    suspect: bool
    update_pending: bool
    queued: int
    tickets_open: int
    last_report_s: float
    """Seconds since its last report; -1: no report yet."""
    error_msg: str


class UpdateBegun(Said):
    """Number of workers that will be updated."""

    success: Literal[True]
    workers_to_update: int


class UpdateCancelled(Said):
    """Workers that were not updated yet stay as they are."""

    success: Literal[True]
    cancelled: Literal[True]


class WorkerLog(Said):
    """The last lines of a worker's machine."""

    success: Literal[True]
    live: bool
    """False: saved before the instance was rebooted or destroyed."""
    at: float
    """When the lines were read, Unix seconds."""
    log: str


class Logs(Said):
    """The decision log as text; each level includes the less detailed ones."""

    info0: str
    info1: str
    trace: str
    debug: str


class User(Said):
    """The account in the official format."""

    id: int
    username: str
    email: str
    host_agreement_accepted: bool
    balance: float
    credit: float


class Offers(BaseModel):
    """Offers of the marketplace."""

    offers: list[Offer]


class OfferSearch(Keyed):
    """The search of a workergroup."""

    search_params: Any = None
    launch_args: str | None = None
    template_hash: str | None = None
    template_id: int | None = None


class PricedOffer(Offer):
    """An offer with its prices for the workergroup."""

    hot_dollars_per_hour: float
    cold_dollars_per_hour: float


class PricedOffers(Said):
    """Offers, cheapest first; `reason` explains an empty list."""

    success: Literal[True]
    offers: list[PricedOffer]
    disk_gb: float
    market: Literal["host", "vast"]
    engine_url: str
    reason: str


NewTemplate = _optional("NewTemplate", Template, without=["id", "hash_id"], **_KEY)


class TemplateMade(Said):
    """The new template, or an equal older one."""

    success: Literal[True]
    template: Template


class TemplateNamed(Keyed):
    """A template by hash or id."""

    hash_id: str | None = None
    template_id: int | None = None


class Templates(BaseModel):
    """Templates of the marketplace."""

    templates: list[Template]


class Benchmarks(BaseModel):
    """Benchmarks of the marketplace."""

    benchmarks: list[Any]


class OneInstance(Said):
    """One instance, or null."""

    instances: Instance | None


class Instances(Said):
    """All instances of the account, on one page."""

    success: Literal[True]
    instances: list[Instance]
    next_token: None
    total_instances: int
    label_counts: dict[str, int]


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


class EndpointFigures(Said):
    """Live figures of an endpoint at this engine."""

    id: int
    name: str
    state: str
    """`active`, `suspended`, `stopped` or `deleting`."""
    health: str
    """`ok`, `idle` (no hot worker and no request), `waiting` (requests and no hot worker), `late` (queue over its
    target), `degraded` (a worker has an error), `stopped`, `deleting`, `stuck` (no progress, see `fault`)."""
    fault: str
    wait_code: str
    wait_reason: str
    wait_until: float | None
    changed_at: float
    """When the workflow last changed its fleet or config, Unix seconds."""
    workers: dict[str, int]
    """Number of workers by status."""
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
    launch_id: str
    outcome: str


class Requests(Said):
    """The last, slowest and failed requests at this engine."""

    recent: list[RequestRow]
    slow: list[RequestRow]
    """Of the last hour."""
    failed: list[RequestRow]


class Model(Said):
    """An endpoint in the format of an OpenAI model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIError(Said):
    """An error in OpenAI's format."""

    message: str
    type: str
    code: str
    param: None


class OpenAIProblem(Said):
    """A refusal under `/openai/…`."""

    error: OpenAIError


class OpenedJob(Said):
    """A job that has a worker. Its first call opens it there."""

    url: str
    """The base address of the job's calls at the engine."""
    worker_url: str
    """The base address of the same calls at the worker."""
    worker_id: int
    request_idx: int
    cost: float
    """Workload that the job may bring."""
    opens_within_seconds: float
    """The first call must come within this time."""


class Models(Said):
    """The models of this base URL."""

    object: Literal["list"]
    data: list[Model]
