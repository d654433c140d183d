"""Handlers for offers, instances and logs."""

from typing import Any

from aiohttp import web

from hosts.api.http import host_of, json_response, path_id, read_json_query, read_model, read_object
from hosts.api.instance_view import instance_row
from hosts.api.log_view import LogView
from hosts.api.paging import page_begin, page_limit, page_token, read_order
from hosts.api.requests import CreateBody, InstanceChange, OfferSearch, TemplateChange
from hosts.api.shapes import (
    ID,
    PAGE,
    SECURED,
    AllInstances,
    Bid,
    ChangeMany,
    Created,
    DestroyMany,
    InstancePage,
    LogRequest,
    LogsGranted,
    Offers,
    OneInstance,
    Search,
    SearchUnder,
    TemplateUpdated,
    ok,
)
from hosts.faults import FaultKind
from hosts.host import Host
from market.query import GrammarError, matches, parse_filters, sorted_by
from stoker_wire.errors.problem import Problem
from stoker_wire.http.openapi import Done, Reply, handles

LOGS: web.AppKey[LogView] = web.AppKey("logs", LogView)


# offers


@handles("POST /api/v0/bundles/", **SECURED, body=Search, body_required=False, replies=ok(Offers))
async def search_bundles(request: web.Request) -> web.Response:
    """Search offers; the body is the query."""
    body = await read_object(request)
    return json_response({"offers": host_of(request).search(OfferSearch.read(body))})


@handles("PUT /api/v0/search/asks/", **SECURED, body=SearchUnder, body_required=False, replies=ok(Offers))
async def search_asks(request: web.Request) -> web.Response:
    """Search offers; the query is under `q`."""
    query = (await read_object(request)).get("q") or {}
    if not isinstance(query, dict):
        raise Problem(400, "invalid_args", "q: expected a query object")
    return json_response({"offers": host_of(request).search(OfferSearch.read(query))})


@handles(r"PUT /api/v0/asks/{id:\d{1,15}}/", **ID, body=CreateBody, replies=ok(Created))
async def create(request: web.Request) -> web.Response:
    """Rent an offer."""
    body = await read_model(request, CreateBody)
    record = host_of(request).create(path_id(request), body)
    return json_response({"success": True, "new_contract": record.id, "instance_api_key": record.api_key})


# instances


def _row(request: web.Request, instance_id: int) -> dict[str, Any] | None:
    host = host_of(request)
    one = host.instances.get(instance_id)
    return instance_row(one, host.catalog) if one is not None else None


@handles(r"GET /api/v0/instances/{id:\d{1,15}}/", **ID, replies=ok(OneInstance))
async def show(request: web.Request) -> web.Response:
    """One instance, or null, under `instances`."""
    return json_response({"instances": _row(request, path_id(request))})


@handles("GET /api/v0/instances/", **SECURED, replies=ok(AllInstances))
async def list_all(request: web.Request) -> web.Response:
    """All instances in one response."""
    host = host_of(request)
    return json_response({"instances": [instance_row(one, host.catalog) for one in host.instances.values()]})


@handles("GET /api/v1/instances/", **SECURED, parameters=PAGE, replies=ok(InstancePage))
async def list_page(request: web.Request) -> web.Response:
    """A page of instances, at most 25."""
    host = host_of(request)
    try:
        filters = parse_filters(read_json_query(request, "select_filters"))
        order = read_order(read_json_query(request, "order_by"))
    except GrammarError as error:
        raise Problem(400, "invalid_args", str(error)) from None
    rows = [instance_row(one, host.catalog) for one in host.instances.values()]
    if host.faults.take(FaultKind.LIST_EMPTY, path=request.path, method=request.method):
        rows = []
    rows = sorted_by(order, [row for row in rows if matches(filters, row)])
    labels: dict[str, int] = {}
    for row in rows:
        labels[row["label"] or ""] = labels.get(row["label"] or "", 0) + 1
    begin = page_begin(rows, request.query.get("after_token"))
    limit = page_limit(request.query.get("limit"))
    page = rows[begin : begin + limit]
    more = begin + limit < len(rows)
    return json_response(
        {
            "success": True,
            "instances": page,
            "next_token": page_token(page[-1]["id"]) if more else None,
            "total_instances": len(rows),
            "label_counts": labels,
        }
    )


def _apply(host: Host, instance_id: int, wish: InstanceChange) -> None:
    one = host.instance(instance_id)
    if wish.state is None and wish.label is None:
        raise Problem(400, "invalid_args", "nothing to change: send state (running or stopped) or label")
    if wish.label is not None:
        one.record.label = wish.label
        host.store.save(one.record)
    if wish.state is not None:
        one.set_intended(wish.state)


@handles(r"PUT /api/v0/instances/{id:\d{1,15}}/", **ID, body=InstanceChange, replies=ok(Done))
async def change(request: web.Request) -> web.Response:
    """Start, stop or relabel an instance."""
    wish = await read_model(request, InstanceChange)
    _apply(host_of(request), path_id(request), wish)
    return json_response({"success": True})


@handles("PUT /api/v0/instances/", **SECURED, body=ChangeMany, replies=ok(Done))
async def change_many(request: web.Request) -> web.Response:
    """Start, stop or relabel the instances in `ids`."""
    ids = _ids(await read_object(request), "ids")
    wish = await read_model(request, InstanceChange)
    for instance_id in ids:
        host_of(request).instance(instance_id)
    for instance_id in ids:
        _apply(host_of(request), instance_id, wish)
    return json_response({"success": True})


@handles(r"DELETE /api/v0/instances/{id:\d{1,15}}/", **ID, replies=ok(Done))
async def destroy(request: web.Request) -> web.Response:
    """Destroy an instance; the response comes after its processes and its disk are gone."""
    await host_of(request).destroy(path_id(request))
    return json_response({"success": True})


@handles("DELETE /api/v0/instances/", **SECURED, body=DestroyMany, replies=ok(Done))
async def destroy_many(request: web.Request) -> web.Response:
    """Destroy the instances in `instance_ids`."""
    for instance_id in _ids(await read_object(request), "instance_ids"):
        await host_of(request).destroy(instance_id)
    return json_response({"success": True})


def _ids(body: dict[str, Any], name: str) -> list[int]:
    ids = body.get(name)
    if not isinstance(ids, list) or not ids or not all(type(one) is int for one in ids):
        raise Problem(400, "invalid_args", f"{name}: expected a list of instance ids")
    return list(dict.fromkeys(ids))


@handles(r"PUT /api/v0/instances/reboot/{id:\d{1,15}}/", **ID, replies=ok(Done))
async def reboot(request: web.Request) -> web.Response:
    """Stop and start the instance's processes."""
    host_of(request).instance(path_id(request)).restart("reboot")
    return json_response({"success": True})


@handles(r"PUT /api/v0/instances/recycle/{id:\d{1,15}}/", **ID, replies=ok(Done))
async def recycle(request: web.Request) -> web.Response:
    """Restart the instance with an empty disk and a newly pulled image."""
    host_of(request).instance(path_id(request)).restart("recycle")
    return json_response({"success": True})


@handles(
    r"PUT /api/v0/instances/update_template/{id:\d{1,15}}/",
    **ID,
    body=TemplateChange,
    replies=ok(TemplateUpdated),
)
async def update_template(request: web.Request) -> web.Response:
    """Change what the instance runs from its next start on."""
    change_to = await read_model(request, TemplateChange)
    instance_id = path_id(request)
    host_of(request).update_template(instance_id, change_to)
    return json_response({"success": True, "updated_instance": _row(request, instance_id)})


@handles(r"PUT /api/v0/instances/bid_price/{id:\d{1,15}}/", **ID, body=Bid, replies=ok(Done))
async def bid_price(request: web.Request) -> web.Response:
    """Change the price of an interruptible instance."""
    price = (await read_object(request)).get("price")
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0 < price < 1e6:
        raise Problem(400, "invalid_price", "price: expected $/h over 0")
    host_of(request).bid(path_id(request), float(price))
    return json_response({"success": True})


# logs


@handles(
    r"PUT /api/v0/instances/request_logs/{id:\d{1,15}}/",
    **ID,
    body=LogRequest,
    body_required=False,
    replies=ok(LogsGranted),
)
async def request_logs(request: web.Request) -> web.Response:
    """An address from which the log's last lines can be read for five minutes."""
    body = await read_object(request)
    one = host_of(request).instance(path_id(request))
    token = request.app[LOGS].grant(one.record.id, body.get("tail"), str(body.get("filter") or ""))
    return json_response(
        {"success": True, "result_url": f"{request.scheme}://{request.host}/host/logs/{token}"}
    )


@handles(
    "GET /host/logs/{token}",
    replies={200: Reply(about="The granted lines", content_type="text/plain")},
    refuses=(404,),
)
async def read_log(request: web.Request) -> web.Response:
    """The log lines that the token grants, as text."""
    host = host_of(request)
    text = await request.app[LOGS].read(request.match_info["token"], host.resources.home)
    return web.Response(body=text, headers={"Content-Type": "text/plain; charset=utf-8"})
