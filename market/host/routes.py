"""The marketplace's routes, thin: read, ask the host, answer."""

import base64
import time
from typing import Any

from aiohttp import web

from market.grammar import GrammarError, Order, matches, parse_filters, parse_order, sorted_by
from market.host.describe import instance_row
from market.host.faults import Fault
from market.host.host import Host
from market.host.http import HOST, answer, path_id, read_json_query, read_model, read_object
from market.host.log_view import LogView
from market.host.requests import CreateBody, InstanceChange, OfferSearch, TemplateChange
from stoker_wire.problem import Problem

PAGE_MAX = 25
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
            web.get("/api/v0/template/", list_templates),
            web.post("/api/v0/template/", create_template),
            web.delete("/api/v0/template/", delete_template),
            web.get("/api/v0/users/current", current_user),
            web.get("/api/v0/users/current/", current_user),
            web.get("/healthz", healthy),
            web.get("/host/charges/", charges),
            web.get("/host/faults/", list_faults),
            web.post("/host/faults/", arm_fault),
            web.delete("/host/faults/", clear_faults),
            web.get("/host/logs/{token}", read_log),
        ]
    )


def _host(request: web.Request) -> Host:
    return request.app[HOST]


# offers


async def search_bundles(request: web.Request) -> web.Response:
    """`{offers: [...]}`; the body is the query."""
    body = await read_object(request)
    return answer({"offers": _host(request).search(OfferSearch.read(body))})


async def search_asks(request: web.Request) -> web.Response:
    """The same with the query under `q`."""
    query = (await read_object(request)).get("q") or {}
    if not isinstance(query, dict):
        raise Problem(400, "invalid_args", "q: expected a query object")
    return answer({"offers": _host(request).search(OfferSearch.read(query))})


async def create(request: web.Request) -> web.Response:
    """Rent an offer."""
    body = await read_model(request, CreateBody)
    record = _host(request).create(path_id(request), body)
    return answer({"success": True, "new_contract": record.id, "instance_api_key": record.api_key})


# instances


def _row(request: web.Request, instance_id: int) -> dict[str, Any] | None:
    host = _host(request)
    one = host.instances.get(instance_id)
    return instance_row(one, host.catalog) if one is not None else None


async def show(request: web.Request) -> web.Response:
    """`{instances: I | null}`: one instance under the plural's name."""
    return answer({"instances": _row(request, path_id(request))})


async def list_all(request: web.Request) -> web.Response:
    """Every instance, in one answer."""
    host = _host(request)
    return answer({"instances": [instance_row(one, host.catalog) for one in host.instances.values()]})


async def list_page(request: web.Request) -> web.Response:
    """`{instances, next_token, total_instances, label_counts}`, at most 25 a page."""
    host = _host(request)
    try:
        filters = parse_filters(read_json_query(request, "select_filters"))
        order = _order(read_json_query(request, "order_by"))
    except GrammarError as error:
        raise Problem(400, "invalid_args", str(error)) from None
    rows = [instance_row(one, host.catalog) for one in host.instances.values()]
    rows = sorted_by(order, [row for row in rows if matches(filters, row)])
    labels: dict[str, int] = {}
    for row in rows:
        labels[row["label"] or ""] = labels.get(row["label"] or "", 0) + 1
    begin = _after(rows, request.query.get("after_token"))
    limit = _limit(request.query.get("limit"))
    page = rows[begin : begin + limit]
    more = begin + limit < len(rows)
    return answer(
        {
            "success": True,
            "instances": page,
            "next_token": _token(page[-1]["id"]) if more else None,
            "total_instances": len(rows),
            "label_counts": labels,
        }
    )


def _order(order: Any) -> Order:
    """`[{"col": "id", "dir": "asc"}]`; by id when nothing is said."""
    if not order:
        return (("id", "asc"),)
    if isinstance(order, list):
        order = [
            [entry.get("col"), entry.get("dir", "asc")] if isinstance(entry, dict) else entry
            for entry in order
        ]
    return parse_order(order)


def _token(instance_id: int) -> str:
    return base64.urlsafe_b64encode(f"after:{instance_id}".encode()).decode()


def _after(rows: list[dict[str, Any]], token: str | None) -> int:
    if not token:
        return 0
    try:
        word, _, number = base64.urlsafe_b64decode(token.encode()).decode().partition(":")
        last = int(number)
    except ValueError:
        word, last = "", 0
    if word != "after":
        raise Problem(
            400, "invalid_args", "after_token is not one that this market gave: start again without it"
        )
    for index, row in enumerate(rows):
        if row["id"] == last:
            return index + 1
    # The instance that ended the page before is gone: go on with the next id.
    return next((index for index, row in enumerate(rows) if row["id"] > last), len(rows))


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE_MAX
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:6]) <= PAGE_MAX:
        raise Problem(400, "invalid_args", f"limit is a whole number from 1 to {PAGE_MAX}")
    return int(text)


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
    _apply(_host(request), path_id(request), wish)
    return answer({"success": True})


async def change_many(request: web.Request) -> web.Response:
    """The same for `ids`."""
    ids = _ids(await read_object(request), "ids")
    wish = await read_model(request, InstanceChange)
    for instance_id in ids:
        _host(request).instance(instance_id)
    for instance_id in ids:
        _apply(_host(request), instance_id, wish)
    return answer({"success": True})


async def destroy(request: web.Request) -> web.Response:
    """Release it; when this answers, its processes and its disk are gone."""
    await _host(request).destroy(path_id(request))
    return answer({"success": True})


async def destroy_many(request: web.Request) -> web.Response:
    """The same for `instance_ids`."""
    for instance_id in _ids(await read_object(request), "instance_ids"):
        await _host(request).destroy(instance_id)
    return answer({"success": True})


def _ids(body: dict[str, Any], name: str) -> list[int]:
    ids = body.get(name)
    if not isinstance(ids, list) or not ids or not all(type(one) is int for one in ids):
        raise Problem(400, "invalid_args", f"{name}: expected a list of instance ids")
    return list(dict.fromkeys(ids))


async def reboot(request: web.Request) -> web.Response:
    """Stop and start its processes."""
    _host(request).instance(path_id(request)).again("reboot")
    return answer({"success": True})


async def recycle(request: web.Request) -> web.Response:
    """A fresh disk and a newly pulled image on the same slot."""
    _host(request).instance(path_id(request)).again("recycle")
    return answer({"success": True})


async def update_template(request: web.Request) -> web.Response:
    """Change what it runs at its next start."""
    change_to = await read_model(request, TemplateChange)
    instance_id = path_id(request)
    _host(request).update_template(instance_id, change_to)
    return answer({"success": True, "updated_instance": _row(request, instance_id)})


async def bid_price(request: web.Request) -> web.Response:
    """Change an interruptible instance's price."""
    price = (await read_object(request)).get("price")
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0 < price < 1e6:
        raise Problem(400, "invalid_price", "price: expected $/h over 0")
    _host(request).bid(path_id(request), float(price))
    return answer({"success": True})


# logs


async def request_logs(request: web.Request) -> web.Response:
    """`{result_url}`: where the last lines can be read for a while."""
    body = await read_object(request)
    one = _host(request).instance(path_id(request))
    token = request.app[LOGS].grant(one.record.id, body.get("tail"), str(body.get("filter") or ""))
    return answer({"success": True, "result_url": f"{request.scheme}://{request.host}/host/logs/{token}"})


async def read_log(request: web.Request) -> web.Response:
    """The granted lines, as text."""
    host = _host(request)
    text = await request.app[LOGS].read(request.match_info["token"], host.means.home)
    return web.Response(body=text, headers={"Content-Type": "text/plain; charset=utf-8"})


# templates


async def list_templates(request: web.Request) -> web.Response:
    """`{templates: [...]}`, filtered by `select_filters`."""
    try:
        filters = parse_filters(read_json_query(request, "select_filters"))
    except GrammarError as error:
        raise Problem(400, "invalid_args", str(error)) from None
    found = _host(request).templates.search(filters)
    return answer({"success": True, "templates_found": len(found), "templates": found})


async def create_template(request: web.Request) -> web.Response:
    """The same content is the same template."""
    template = _host(request).templates.create(await read_object(request))
    return answer({"success": True, "template": template, "msg": f"template {template['hash_id']}"})


async def delete_template(request: web.Request) -> web.Response:
    """By `hash_id` or `template_id`."""
    body = await read_object(request)
    hash_id, template_id = body.get("hash_id"), body.get("template_id")
    if not _host(request).templates.drop(hash_id=hash_id, template_id=template_id):
        raise Problem(404, "no_such_template", "there is no such template")
    return answer({"success": True, "msg": "deleted"})


# the account and the host


async def current_user(request: web.Request) -> web.Response:
    """The one account of this machine."""
    spent = _host(request).charges()["total_dollars"]
    return answer(
        {
            "id": 1,
            "username": "host",
            "email": "",
            "has_billing": False,
            "host_agreement_accepted": True,
            "credit": 0.0,
            "balance": 0.0,
            "total_spend": spent,
        }
    )


async def healthy(request: web.Request) -> web.Response:
    """The marketplace answers."""
    return answer({"ok": True, "instances": len(_host(request).instances), "now": time.time()})


async def charges(request: web.Request) -> web.Response:
    """What every instance has cost."""
    return answer(_host(request).charges())


async def list_faults(request: web.Request) -> web.Response:
    """What is armed."""
    return answer({"faults": [fault.model_dump(mode="json") for fault in _host(request).faults.armed()]})


async def arm_fault(request: web.Request) -> web.Response:
    """Arm one."""
    _host(request).arm(await read_model(request, Fault))
    return await list_faults(request)


async def clear_faults(request: web.Request) -> web.Response:
    """Disarm all."""
    _host(request).clear_faults()
    return await list_faults(request)
