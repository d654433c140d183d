"""`GET /openapi.json`: the marketplace's calls as an OpenAPI 3.1 document."""

from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from hosts.api.http import json_response
from hosts.api.requests import CreateBody, InstanceChange, TemplateChange
from hosts.faults import Fault
from hosts.settings import TemplateSettings
from stoker_wire.openapi import Done, Operation, Parameter, Reply, Said, Table, document, told

_ABOUT = "Rents the machines of this host: the marketplace's REST API over local processes."
VERSION = "0.2.0"
_EVERYWHERE = (400, 408, 415, 431, 503)

SECURITY: dict[str, dict[str, str]] = {
    "key": {"type": "http", "scheme": "bearer", "description": "The market's key, or an instance's own"},
    "keyInQuery": {"type": "apiKey", "in": "query", "name": "api_key"},
}


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
_SECURED: dict[str, Any] = {"security": ("key", "keyInQuery"), "refuses": _REFUSED}
_ID: dict[str, Any] = _SECURED | {
    "parameters": (Parameter(name="id", about="The number that create answered", where="path", type=int),)
}
_FILTERS = Parameter(name="select_filters", about='A JSON object: `{"label": {"eq": "x"}}`')
_PAGE = (
    _FILTERS,
    Parameter(name="order_by", about='A JSON list: `[{"col": "id", "dir": "asc"}]`'),
    Parameter(name="limit", about="Instances on a page, 1 to 25", type=int),
    Parameter(name="after_token", about="`next_token` of the previous page"),
)


def _ok(type_: Any, about: str = "Done") -> dict[int, Reply]:
    return {200: Reply(about=about, type=type_)}


_USER = Operation(**_SECURED, replies=_ok(User))
_FAULTS: dict[str, Any] = _SECURED | {"replies": _ok(ArmedFaults)}

OPERATIONS: Table = {
    ("POST", "/api/v0/bundles/"): Operation(
        **_SECURED, body=Search, body_required=False, replies=_ok(Offers)
    ),
    ("PUT", "/api/v0/search/asks/"): Operation(
        **_SECURED, body=SearchUnder, body_required=False, replies=_ok(Offers)
    ),
    ("PUT", "/api/v0/asks/{id}/"): Operation(**_ID, body=CreateBody, replies=_ok(Created)),
    ("GET", "/api/v0/instances/"): Operation(**_SECURED, replies=_ok(AllInstances)),
    ("PUT", "/api/v0/instances/"): Operation(**_SECURED, body=ChangeMany, replies=_ok(Done)),
    ("DELETE", "/api/v0/instances/"): Operation(**_SECURED, body=DestroyMany, replies=_ok(Done)),
    ("GET", "/api/v1/instances/"): Operation(**_SECURED, parameters=_PAGE, replies=_ok(InstancePage)),
    ("GET", "/api/v0/instances/{id}/"): Operation(**_ID, replies=_ok(OneInstance)),
    ("PUT", "/api/v0/instances/{id}/"): Operation(**_ID, body=InstanceChange, replies=_ok(Done)),
    ("DELETE", "/api/v0/instances/{id}/"): Operation(**_ID, replies=_ok(Done)),
    ("PUT", "/api/v0/instances/reboot/{id}/"): Operation(**_ID, replies=_ok(Done)),
    ("PUT", "/api/v0/instances/recycle/{id}/"): Operation(**_ID, replies=_ok(Done)),
    ("PUT", "/api/v0/instances/update_template/{id}/"): Operation(
        **_ID, body=TemplateChange, replies=_ok(TemplateUpdated)
    ),
    ("PUT", "/api/v0/instances/bid_price/{id}/"): Operation(**_ID, body=Bid, replies=_ok(Done)),
    ("PUT", "/api/v0/instances/request_logs/{id}/"): Operation(
        **_ID, body=LogRequest, body_required=False, replies=_ok(LogsGranted)
    ),
    ("GET", "/api/v0/template/"): Operation(**_SECURED, parameters=(_FILTERS,), replies=_ok(TemplatesFound)),
    ("POST", "/api/v0/template/"): Operation(**_SECURED, body=dict[str, Any], replies=_ok(TemplateMade)),
    ("DELETE", "/api/v0/template/"): Operation(**_SECURED, body=TemplateNamed, replies=_ok(TemplateDeleted)),
    ("GET", "/api/v0/users/current"): _USER,
    ("GET", "/api/v0/users/current/"): _USER,
    ("GET", "/healthz"): Operation(replies=_ok(Healthy)),
    ("GET", "/openapi.json"): Operation(replies=_ok(dict[str, Any], "This document")),
    ("GET", "/api/v0/charges/"): Operation(**_SECURED | {"parameters": (_FILTERS,)}, replies=_ok(Bill)),
    ("GET", "/host/charges/"): Operation(**_SECURED, replies=_ok(Charges)),
    ("GET", "/host/faults/"): Operation(**_FAULTS),
    ("POST", "/host/faults/"): Operation(**_FAULTS, body=Fault),
    ("DELETE", "/host/faults/"): Operation(**_FAULTS),
    ("GET", "/host/logs/{token}"): Operation(
        replies={200: Reply(about="The granted lines", content_type="text/plain")}, refuses=(404,)
    ),
}
"""Requests and replies of every route; a test compares the table with the routes."""


async def openapi(request: web.Request) -> web.Response:
    """This OpenAPI document."""
    return json_response(made(request.app))


def made(app: web.Application) -> dict[str, Any]:
    """The document. Raises KeyError for a route that is missing in the table."""
    routes = [
        (route.method, route.resource.canonical, route.handler.__doc__)
        for route in app.router.routes()
        if route.method != "HEAD" and route.resource is not None
    ]
    return document(
        "stoker host marketplace",
        VERSION,
        _ABOUT,
        told(OPERATIONS, routes),
        security=SECURITY,
        everywhere=_EVERYWHERE,
    )
