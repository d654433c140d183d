"""Handlers for templates, the account, charges and injected faults."""

import time
from typing import Any

from aiohttp import web

from hosts.api.http import host_of, json_response, read_json_query, read_model, read_object
from hosts.api.shapes import (
    FAULTS,
    FILTERS,
    SECURED,
    Bill,
    Charges,
    Healthy,
    TemplateDeleted,
    TemplateMade,
    TemplateNamed,
    TemplatesFound,
    User,
    ok,
)
from hosts.faults import Fault
from market.query import GrammarError, parse_filters
from stoker_wire.errors.problem import Problem
from stoker_wire.http.openapi import handles
from stoker_wire.parsing.numbers import finite


@handles("GET /api/v0/template/", **SECURED, parameters=(FILTERS,), replies=ok(TemplatesFound))
async def list_templates(request: web.Request) -> web.Response:
    """Templates that match `select_filters`."""
    try:
        filters = parse_filters(read_json_query(request, "select_filters"))
    except GrammarError as error:
        raise Problem(400, "invalid_args", str(error)) from None
    found = host_of(request).templates.search(filters)
    return json_response({"success": True, "templates_found": len(found), "templates": found})


@handles("POST /api/v0/template/", **SECURED, body=dict[str, Any], replies=ok(TemplateMade))
async def create_template(request: web.Request) -> web.Response:
    """Create a template; equal content gives the same template."""
    template = host_of(request).templates.create(await read_object(request))
    return json_response({"success": True, "template": template, "msg": f"template {template['hash_id']}"})


@handles("DELETE /api/v0/template/", **SECURED, body=TemplateNamed, replies=ok(TemplateDeleted))
async def delete_template(request: web.Request) -> web.Response:
    """Delete a template by `hash_id` or `template_id`."""
    body = await read_object(request)
    hash_id, template_id = body.get("hash_id"), body.get("template_id")
    if not host_of(request).templates.drop(hash_id=hash_id, template_id=template_id):
        raise Problem(404, "no_such_template", "there is no such template")
    return json_response({"success": True, "msg": "deleted"})


@handles("GET /api/v0/users/current", "GET /api/v0/users/current/", **SECURED, replies=ok(User))
async def current_user(request: web.Request) -> web.Response:
    """The only account of this marketplace."""
    spent = host_of(request).charges()["total_dollars"]
    return json_response(
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


@handles("GET /healthz", replies=ok(Healthy))
async def healthy(request: web.Request) -> web.Response:
    """The health of the marketplace."""
    return json_response({"ok": True, "instances": len(host_of(request).instances), "now": time.time()})


@handles("GET /host/charges/", **SECURED, replies=ok(Charges))
async def charges(request: web.Request) -> web.Response:
    """The cost of every instance."""
    return json_response(host_of(request).charges())


@handles("GET /api/v0/charges/", **SECURED | {"parameters": (FILTERS,)}, replies=ok(Bill))
async def bill(request: web.Request) -> web.Response:
    """The bill in the hosted API's form: one row per instance that existed since the requested day."""
    try:
        days = parse_filters(read_json_query(request, "select_filters")).get("day", {})
    except GrammarError as error:
        raise Problem(400, "invalid_args", str(error)) from None
    since = finite(days.get("gte", 0.0))
    if since is None:
        raise Problem(400, "invalid_args", "select_filters: day must be a number of Unix seconds")
    rows = [
        {
            "type": "instance",
            "source": f"instance-{row['id']}",
            "description": f"Instance {row['id']} Charges",
            "start": row.get("start", 0.0),
            "end": row.get("end", 0.0),
            "amount": row["dollars"],
            "metadata": {"label": row["label"]},
            "items": [],
            "final": row["destroyed"],
        }
        for row in host_of(request).charges()["instances"]
        if row.get("end", 0.0) >= since
    ]
    return json_response(
        {"success": True, "count": len(rows), "total": len(rows), "next_token": None, "results": rows}
    )


@handles("GET /host/faults/", **FAULTS)
async def list_faults(request: web.Request) -> web.Response:
    """The armed faults."""
    return json_response(
        {"faults": [fault.model_dump(mode="json") for fault in host_of(request).faults.armed()]}
    )


@handles("POST /host/faults/", **FAULTS, body=Fault)
async def arm_fault(request: web.Request) -> web.Response:
    """Arm a fault and list the armed faults."""
    host_of(request).arm(await read_model(request, Fault))
    return await list_faults(request)


@handles("DELETE /host/faults/", **FAULTS)
async def clear_faults(request: web.Request) -> web.Response:
    """Disarm all faults."""
    host_of(request).clear_faults()
    return await list_faults(request)
