"""The marketplace's routes, thin: read, ask the host, answer."""

from typing import Any

from aiohttp import web

from hosts.api import routes_host as own
from hosts.api.describe import instance_row
from hosts.api.http import answer, host_of, path_id, read_json_query, read_model, read_object
from hosts.api.log_view import LogView
from hosts.api.openapi import openapi
from hosts.api.paging import page_begin, page_limit, page_token, read_order
from hosts.api.requests import CreateBody, InstanceChange, OfferSearch, TemplateChange
from hosts.faults import FaultKind
from hosts.host import Host
from market.query import GrammarError, matches, parse_filters, sorted_by
from stoker_wire.problem import Problem

LOGS: web.AppKey[LogView] = web.AppKey("logs", LogView)


def add_routes(app: web.Application) -> None:
    """All routes of the REST API, and the host's own under /host/."""
    number = r"{id:\d{1,15}}"
    app.add_routes(
        [
            web.post("/api/v0/bundles/", search_bundles),
            web.put("/api/v0/search/asks/", search_asks),
            web.put(f"/api/v0/asks/{number}/", create),
            web.get("/api/v0/instances/", list_all),
            web.put("/api/v0/instances/", change_many),
            web.delete("/api/v0/instances/", destroy_many),
            web.get("/api/v1/instances/", list_page),
            web.get(f"/api/v0/instances/{number}/", show),
            web.put(f"/api/v0/instances/{number}/", change),
            web.delete(f"/api/v0/instances/{number}/", destroy),
            web.put(f"/api/v0/instances/reboot/{number}/", reboot),
            web.put(f"/api/v0/instances/recycle/{number}/", recycle),
            web.put(f"/api/v0/instances/update_template/{number}/", update_template),
            web.put(f"/api/v0/instances/bid_price/{number}/", bid_price),
            web.put(f"/api/v0/instances/request_logs/{number}/", request_logs),
            web.get("/api/v0/template/", own.list_templates),
            web.post("/api/v0/template/", own.create_template),
            web.delete("/api/v0/template/", own.delete_template),
            web.get("/api/v0/users/current", own.current_user),
            web.get("/api/v0/users/current/", own.current_user),
            web.get("/healthz", own.healthy),
            web.get("/openapi.json", openapi),
            web.get("/host/charges/", own.charges),
            web.get("/api/v0/charges/", own.bill),
            web.get("/host/faults/", own.list_faults),
            web.post("/host/faults/", own.arm_fault),
            web.delete("/host/faults/", own.clear_faults),
            web.get("/host/logs/{token}", read_log),
        ]
    )


# offers


async def search_bundles(request: web.Request) -> web.Response:
    """`{offers: [...]}`; the body is the query."""
    body = await read_object(request)
    return answer({"offers": host_of(request).search(OfferSearch.read(body))})


async def search_asks(request: web.Request) -> web.Response:
    """The same with the query under `q`."""
    query = (await read_object(request)).get("q") or {}
    if not isinstance(query, dict):
        raise Problem(400, "invalid_args", "q: expected a query object")
    return answer({"offers": host_of(request).search(OfferSearch.read(query))})


async def create(request: web.Request) -> web.Response:
    """Rent an offer."""
    body = await read_model(request, CreateBody)
    record = host_of(request).create(path_id(request), body)
    return answer({"success": True, "new_contract": record.id, "instance_api_key": record.api_key})


# instances


def _row(request: web.Request, instance_id: int) -> dict[str, Any] | None:
    host = host_of(request)
    one = host.instances.get(instance_id)
    return instance_row(one, host.catalog) if one is not None else None


async def show(request: web.Request) -> web.Response:
    """`{instances: I | null}`: one instance under the plural's name."""
    return answer({"instances": _row(request, path_id(request))})


async def list_all(request: web.Request) -> web.Response:
    """Every instance, in one answer."""
    host = host_of(request)
    return answer({"instances": [instance_row(one, host.catalog) for one in host.instances.values()]})


async def list_page(request: web.Request) -> web.Response:
    """`{instances, next_token, total_instances, label_counts}`, at most 25 a page."""
    host = host_of(request)
    try:
        filters = parse_filters(read_json_query(request, "select_filters"))
        order = read_order(read_json_query(request, "order_by"))
    except GrammarError as error:
        raise Problem(400, "invalid_args", str(error)) from None
    rows = [instance_row(one, host.catalog) for one in host.instances.values()]
    lost = host.faults.take(FaultKind.LIST_EMPTY, path=request.path, method=request.method)
    if lost is not None:
        rows = []
    rows = sorted_by(order, [row for row in rows if matches(filters, row)])
    labels: dict[str, int] = {}
    for row in rows:
        labels[row["label"] or ""] = labels.get(row["label"] or "", 0) + 1
    begin = page_begin(rows, request.query.get("after_token"))
    limit = page_limit(request.query.get("limit"))
    page = rows[begin : begin + limit]
    more = begin + limit < len(rows)
    return answer(
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
        one.want(wish.state)


async def change(request: web.Request) -> web.Response:
    """Start, stop or relabel."""
    wish = await read_model(request, InstanceChange)
    _apply(host_of(request), path_id(request), wish)
    return answer({"success": True})


async def change_many(request: web.Request) -> web.Response:
    """The same for `ids`."""
    ids = _ids(await read_object(request), "ids")
    wish = await read_model(request, InstanceChange)
    for instance_id in ids:
        host_of(request).instance(instance_id)
    for instance_id in ids:
        _apply(host_of(request), instance_id, wish)
    return answer({"success": True})


async def destroy(request: web.Request) -> web.Response:
    """Release it; when this answers, its processes and its disk are gone."""
    await host_of(request).destroy(path_id(request))
    return answer({"success": True})


async def destroy_many(request: web.Request) -> web.Response:
    """The same for `instance_ids`."""
    for instance_id in _ids(await read_object(request), "instance_ids"):
        await host_of(request).destroy(instance_id)
    return answer({"success": True})


def _ids(body: dict[str, Any], name: str) -> list[int]:
    ids = body.get(name)
    if not isinstance(ids, list) or not ids or not all(type(one) is int for one in ids):
        raise Problem(400, "invalid_args", f"{name}: expected a list of instance ids")
    return list(dict.fromkeys(ids))


async def reboot(request: web.Request) -> web.Response:
    """Stop and start its processes."""
    host_of(request).instance(path_id(request)).again("reboot")
    return answer({"success": True})


async def recycle(request: web.Request) -> web.Response:
    """A fresh disk and a newly pulled image on the same slot."""
    host_of(request).instance(path_id(request)).again("recycle")
    return answer({"success": True})


async def update_template(request: web.Request) -> web.Response:
    """Change what it runs at its next start."""
    change_to = await read_model(request, TemplateChange)
    instance_id = path_id(request)
    host_of(request).update_template(instance_id, change_to)
    return answer({"success": True, "updated_instance": _row(request, instance_id)})


async def bid_price(request: web.Request) -> web.Response:
    """Change an interruptible instance's price."""
    price = (await read_object(request)).get("price")
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0 < price < 1e6:
        raise Problem(400, "invalid_price", "price: expected $/h over 0")
    host_of(request).bid(path_id(request), float(price))
    return answer({"success": True})


# logs


async def request_logs(request: web.Request) -> web.Response:
    """`{result_url}`: where the last lines can be read for a while."""
    body = await read_object(request)
    one = host_of(request).instance(path_id(request))
    token = request.app[LOGS].grant(one.record.id, body.get("tail"), str(body.get("filter") or ""))
    return answer({"success": True, "result_url": f"{request.scheme}://{request.host}/host/logs/{token}"})


async def read_log(request: web.Request) -> web.Response:
    """The granted lines, as text."""
    host = host_of(request)
    text = await request.app[LOGS].read(request.match_info["token"], host.means.home)
    return web.Response(body=text, headers={"Content-Type": "text/plain; charset=utf-8"})
