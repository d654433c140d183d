"""Request and reply bodies of the marketplace's calls, and the parts of declarations that several handlers share."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from hosts.api.requests import InstanceChange
from hosts.faults import Fault
from hosts.settings import TemplateSettings
from stoker_wire.http.openapi import Parameter, Reply, Said


class _Row(BaseModel):
    """A row with further, untyped columns."""

    model_config = ConfigDict(extra="allow")


class OfferRow(_Row):
    """A machine that can be rented now."""

    id: int
    machine_id: int
    gpu_name: str
    num_gpus: int
    dph_base: float
    dph_total: float
    min_bid: float
    rentable: bool
    is_bid: bool


class InstanceRow(_Row):
    """A rented machine."""

    id: int
    label: str | None
    actual_status: str | None
    intended_status: Literal["running", "stopped"]
    cur_state: str
    next_state: str
    status_msg: str | None
    public_ipaddr: str
    ports: dict[str, list[dict[str, str]]]
    dph_base: float
    dph_total: float
    storage_total_cost: float
    disk_space: float
    is_bid: bool
    image_args: list[str]
    extra_env: list[list[str]]


class Offers(Said):
    """The offers found."""

    offers: list[OfferRow]


class Created(Said):
    """The new instance."""

    success: Literal[True]
    new_contract: int
    instance_api_key: str


class OneInstance(Said):
    """One instance, or null."""

    instances: InstanceRow | None


class AllInstances(Said):
    """Every instance."""

    instances: list[InstanceRow]


class InstancePage(Said):
    """At most 25 instances."""

    success: Literal[True]
    instances: list[InstanceRow]
    next_token: str | None
    total_instances: int
    label_counts: dict[str, int]


class TemplateUpdated(Said):
    """The instance with its new template."""

    success: Literal[True]
    updated_instance: InstanceRow


class LogsGranted(Said):
    """The address of the log, valid for five minutes."""

    success: Literal[True]
    result_url: str


class TemplateRow(TemplateSettings):
    """A template."""

    id: int
    hash_id: str


class TemplatesFound(Said):
    """The templates that match the filters."""

    success: Literal[True]
    templates_found: int
    templates: list[TemplateRow]


class TemplateMade(Said):
    """The template, new or existing."""

    success: Literal[True]
    template: TemplateRow
    msg: str


class TemplateDeleted(Said):
    """The template was deleted."""

    success: Literal[True]
    msg: str


class User(Said):
    """The account."""

    id: int
    username: str
    email: str
    has_billing: bool
    host_agreement_accepted: bool
    credit: float
    balance: float
    total_spend: float


class Healthy(Said):
    """The health of the marketplace."""

    ok: Literal[True]
    instances: int
    now: float


class Charge(_Row):
    """The cost of one instance."""

    dollars: float


class Charges(Said):
    """The cost of every instance."""

    instances: list[Charge]
    total_dollars: float
    at: float


class BillRow(Said):
    """The bill of one instance."""

    type: Literal["instance"]
    source: str
    description: str
    start: float
    end: float
    amount: float
    metadata: dict[str, str | None]
    items: list[Any]
    final: bool


class Bill(Said):
    """The bill, one row per instance."""

    success: Literal[True]
    count: int
    total: int
    next_token: None
    results: list[BillRow]


class ArmedFaults(Said):
    """The armed faults."""

    faults: list[Fault]


class Search(BaseModel):
    """Filters by field (`{"gpu_name": {"eq": "RTX 4090"}}`) and these options."""

    model_config = ConfigDict(extra="allow")

    type: str | None = None
    """`on-demand`, `bid` or `reserved`."""
    order: list[list[str]] | None = None
    limit: int | None = None
    allocated_storage: float | None = None


class SearchUnder(BaseModel):
    """A search with the query under `q`."""

    q: Search | None = None


class ChangeMany(InstanceChange):
    """One change for several instances."""

    ids: list[int]


class DestroyMany(BaseModel):
    """The instances to destroy."""

    instance_ids: list[int]


class Bid(BaseModel):
    """The price of an interruptible instance, $/h."""

    price: float


class LogRequest(BaseModel):
    """The lines to read."""

    tail: int | None = None
    filter: str | None = None


class TemplateNamed(BaseModel):
    """The template's hash or id."""

    hash_id: str | None = None
    template_id: int | None = None


_REFUSED = (400, 401, 404, 413, 429, 500)
SECURED: dict[str, Any] = {"security": ("key", "keyInQuery"), "refuses": _REFUSED}
ID: dict[str, Any] = SECURED | {
    "parameters": (Parameter(name="id", about="The number that create answered", where="path", type=int),)
}
FILTERS = Parameter(name="select_filters", about='A JSON object: `{"label": {"eq": "x"}}`')
PAGE = (
    FILTERS,
    Parameter(name="order_by", about='A JSON list: `[{"col": "id", "dir": "asc"}]`'),
    Parameter(name="limit", about="Instances on a page, 1 to 25", type=int),
    Parameter(name="after_token", about="`next_token` of the previous page"),
)


def ok(type_: Any, about: str = "Done") -> dict[int, Reply]:
    """A JSON reply."""
    return {200: Reply(about=about, type=type_)}


FAULTS: dict[str, Any] = SECURED | {"replies": ok(ArmedFaults)}
