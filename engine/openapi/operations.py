"""What each call of the engine takes and answers. Every route of the engine stands here, and nothing else (held by a test)."""

from typing import Any

from controller.answers import Costs, EndpointStatus
from engine.openapi import shapes
from stoker_wire.openapi import ANY, Done, Operation, Parameter, Reply, Table
from stoker_wire.route import Route, RouteRequest, Waiting
from stoker_wire.worker_status import FinishedRequests, WorkerStatus

SECURITY: dict[str, dict[str, str]] = {
    "accountKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "An account's key: everything that the account owns",
    },
    "accountKeyInQuery": {"type": "apiKey", "in": "query", "name": "api_key"},
    "endpointKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "An endpoint's key: routes requests of this endpoint, nothing else",
    },
}
_ACCOUNT = ("accountKey", "accountKeyInQuery")
_CLIENT = ("endpointKey", *_ACCOUNT)

_BODY = (400, 401, 408, 413)
_TEMPORAL = (404, 502, 503)
_MARKET = (400, 404, 429, 502, 503)

_ID = Parameter(name="id", about="The number that create answered", where="path", type=int)
_TAIL = Parameter(name="tail", about="How many lines, at most 1000", type=int)
_COST = Parameter(
    name="X-Stoker-Cost",
    about="The request's workload; by default, the worker's rule computes it",
    where="header",
    type=float,
)


def _ok(type_: Any, about: str = "Done", status: int = 200) -> dict[int, Reply]:
    return {status: Reply(about=about, type=type_)}


def _text(content_type: str, about: str) -> dict[int, Reply]:
    return {200: Reply(about=about, content_type=content_type)}


def _worker_calls() -> dict[tuple[str, str], Operation]:
    made: dict[tuple[str, str], Operation] = {}
    for base in ("", "/w/{launch}/{sealed}"):
        made |= {
            ("POST", f"{base}/worker_status/"): Operation(
                tag="workers",
                body=WorkerStatus,
                replies=_ok(Done),
                refuses=(400, 401, 403, 404, 408, 413, 429, 503),
            ),
            ("POST", f"{base}/delete_requests/"): Operation(
                tag="workers",
                body=FinishedRequests,
                replies=_ok(shapes.Closed),
                refuses=(400, 401, 403, 404, 408, 413, 429, 503),
            ),
            ("GET", f"{base}/pubkey/"): Operation(
                tag="workers",
                replies=_text("text/plain", "The public key, PEM"),
                refuses=(404,) if base else (),
            ),
        }
    return made


def _endpoint_calls() -> dict[tuple[str, str], Operation]:
    one = "/api/v0/endptjobs/{id}/"
    secured: dict[str, Any] = {"tag": "endpoints", "security": _ACCOUNT}
    by_id = secured | {"parameters": (_ID,)}
    return {
        ("GET", "/api/v0/endptjobs/"): Operation(
            **secured, replies=_ok(shapes.Endpoints), refuses=(*_BODY, 503)
        ),
        ("POST", "/api/v0/endptjobs/"): Operation(
            **secured,
            body=shapes.NewEndpoint,
            replies=_ok(shapes.EndpointMade),
            refuses=(*_BODY, *_TEMPORAL),
        ),
        ("GET", one): Operation(**by_id, replies=_ok(shapes.EndpointShown), refuses=(400, 401, 404, 503)),
        ("PUT", one): Operation(
            **by_id, body=shapes.EndpointChange, replies=_ok(Done), refuses=(*_BODY, *_TEMPORAL)
        ),
        ("DELETE", one): Operation(
            **by_id,
            body=shapes.EndpointDelete,
            body_required=False,
            replies=_ok(shapes.EndpointDeleted)
            | _ok(shapes.EndpointDeleted, "Not begun, or not complete", 202),
            refuses=(*_BODY, *_TEMPORAL),
        ),
        ("POST", one + "rotate_key/"): Operation(
            **by_id,
            body=shapes.Keyed,
            body_required=False,
            replies=_ok(shapes.KeyRotated),
            refuses=(*_BODY, *_TEMPORAL),
        ),
        ("GET", one + "status/"): Operation(
            **by_id, replies=_ok(EndpointStatus), refuses=(400, 401, *_TEMPORAL)
        ),
        ("GET", one + "decisions/"): Operation(
            **secured,
            parameters=(_ID, _TAIL),
            replies=_ok(shapes.Decisions),
            refuses=(400, 401, *_TEMPORAL),
        ),
        ("GET", one + "advice/"): Operation(
            **by_id, replies=_ok(shapes.Advice), refuses=(400, 401, *_TEMPORAL)
        ),
        ("PUT", one + "advice/"): Operation(
            **by_id, body=shapes.Advised, replies=_ok(Done), refuses=(*_BODY, *_TEMPORAL)
        ),
        ("DELETE", one + "advice/"): Operation(
            **by_id,
            body=shapes.Keyed,
            body_required=False,
            replies=_ok(Done),
            refuses=(*_BODY, *_TEMPORAL),
        ),
        ("GET", one + "hosts/"): Operation(
            **by_id, replies=_ok(shapes.HostsShown), refuses=(400, 401, *_TEMPORAL)
        ),
        ("POST", one + "hosts/unblock/"): Operation(
            **by_id,
            body=shapes.UnblockHosts,
            body_required=False,
            replies=_ok(shapes.HostsUnblocked),
            refuses=(*_BODY, *_TEMPORAL),
        ),
        ("GET", one + "costs/"): Operation(**by_id, replies=_ok(Costs), refuses=(400, 401, *_TEMPORAL)),
    }


def _workergroup_calls() -> dict[tuple[str, str], Operation]:
    made: dict[tuple[str, str], Operation] = {}
    secured: dict[str, Any] = {"tag": "workergroups", "security": _ACCOUNT}
    by_id = secured | {"parameters": (_ID,)}
    refuses = (*_BODY, *_TEMPORAL)
    for base in ("/api/v0/workergroups/", "/api/v0/autojobs/"):
        one = base + "{id}/"
        made |= {
            ("GET", base): Operation(**secured, replies=_ok(shapes.Workergroups), refuses=refuses),
            ("POST", base): Operation(
                **secured, body=shapes.NewWorkergroup, replies=_ok(shapes.WorkergroupMade), refuses=refuses
            ),
            ("GET", one): Operation(
                **by_id, replies=_ok(shapes.WorkergroupShown), refuses=(400, 401, *_TEMPORAL)
            ),
            ("PUT", one): Operation(
                **by_id, body=shapes.WorkergroupChange, replies=_ok(Done), refuses=refuses
            ),
            ("DELETE", one): Operation(
                **by_id, body=shapes.Keyed, body_required=False, replies=_ok(Done), refuses=refuses
            ),
        }
    return made


def _fleet_calls() -> dict[tuple[str, str], Operation]:
    secured: dict[str, Any] = {"tag": "fleet", "security": _ACCOUNT, "refuses": (*_BODY, *_TEMPORAL)}
    about = "A bare list, as official clients expect it; for what does not exist, an object that says so"
    workers = _ok(list[shapes.WorkerRow] | shapes.NoWorkers, about)
    return {
        ("POST", "/get_endpoint_workers/"): Operation(**secured, body=shapes.NamedEndpoint, replies=workers),
        ("POST", "/get_autogroup_workers/"): Operation(
            **secured, body=shapes.NamedWorkergroup, replies=workers
        ),
        ("POST", "/get_workergroup_workers/"): Operation(
            **secured, body=shapes.NamedWorkergroup, replies=workers
        ),
        ("POST", "/update_workers/"): Operation(
            **secured,
            body=shapes.RollingUpdate,
            replies=_ok(shapes.UpdateBegun | shapes.UpdateCancelled),
        ),
        ("POST", "/get_endpoint_logs/"): Operation(
            **secured, body=shapes.NamedEndpoint, replies=_ok(shapes.Logs)
        ),
        ("POST", "/get_autogroup_logs/"): Operation(
            **secured, body=shapes.NamedWorkergroup, replies=_ok(shapes.Logs)
        ),
        ("POST", "/get_workergroup_logs/"): Operation(
            **secured, body=shapes.NamedWorkergroup, replies=_ok(shapes.Logs)
        ),
    }


def _market_calls() -> dict[tuple[str, str], Operation]:
    secured: dict[str, Any] = {"tag": "marketplace", "security": _ACCOUNT}
    search: dict[str, Any] = {
        **secured,
        "body": dict[str, Any],
        "body_required": False,
        "replies": _ok(shapes.Offers, "Offers"),
        "refuses": (*_BODY, *_MARKET),
    }
    filters = Parameter(name="select_filters", about='A JSON object: `{"name": {"eq": "x"}}`')
    looks = (401, *_MARKET)
    return {
        ("POST", "/api/v0/bundles/"): Operation(**search),
        ("PUT", "/api/v0/search/asks/"): Operation(**search),
        ("GET", "/api/v0/template/"): Operation(
            **secured, parameters=(filters,), replies=_ok(shapes.Templates), refuses=looks
        ),
        ("GET", "/api/v0/benchmarks"): Operation(**secured, replies=_ok(shapes.Benchmarks), refuses=looks),
        ("GET", "/api/v0/benchmarks/"): Operation(**secured, replies=_ok(shapes.Benchmarks), refuses=looks),
        ("GET", "/api/v0/instances/{id}/"): Operation(
            **secured, parameters=(_ID,), replies=_ok(shapes.OneInstance), refuses=looks
        ),
        ("GET", "/api/v0/instances/"): Operation(
            **secured, replies=_ok(shapes.Instances), refuses=(*_BODY, *_MARKET)
        ),
        ("GET", "/api/v1/instances/"): Operation(
            **secured, replies=_ok(shapes.Instances), refuses=(*_BODY, *_MARKET)
        ),
    }


def _model_call(method: str, named: Parameter) -> Operation:
    return Operation(
        tag="requests",
        security=_CLIENT,
        parameters=(named, _COST),
        body=dict[str, Any] if method == "POST" else None,
        replies={ANY: Reply(about="The model's own answer, with its own status", content_type="*/*")},
        refuses=(400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 502, 503, 504),
        problem=shapes.OpenAIProblem,
    )


def _own_calls() -> dict[tuple[str, str], Operation]:
    user = Operation(tag="account", security=_ACCOUNT, replies=_ok(shapes.User), refuses=(401,))
    named = Parameter(name="endpoint", about="The endpoint's name", where="path")
    return {
        ("POST", "/route/"): Operation(
            tag="requests",
            security=_CLIENT,
            body=RouteRequest,
            replies=_ok(Route | Waiting, "A worker and a ticket for it, or why there is none yet"),
            refuses=(400, 401, 404, 408, 413, 422),
        ),
        ("GET", "/openai/{endpoint}/v1/models"): Operation(
            tag="requests",
            security=_CLIENT,
            parameters=(named,),
            replies=_ok(shapes.Models),
            refuses=(401, 404, 503),
            problem=shapes.OpenAIProblem,
        ),
        ("GET", "/openai/{endpoint}/v1/models/{model}"): Operation(
            tag="requests",
            security=_CLIENT,
            parameters=(named,),
            replies=_ok(shapes.Model),
            refuses=(401, 404, 503),
            problem=shapes.OpenAIProblem,
        ),
        ("OPTIONS", "/openai/{endpoint}/{path}"): Operation(
            tag="requests",
            parameters=(named,),
            replies={204: Reply(about="What a web page may send", content_type="")},
            problem=shapes.OpenAIProblem,
        ),
        **{
            (method, "/openai/{endpoint}/{path}"): _model_call(method, named)
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        },
        ("GET", "/healthz"): Operation(tag="health", replies=_ok(shapes.Healthy)),
        ("GET", "/readyz"): Operation(
            tag="health",
            replies={
                200: Reply(about="Ready", type=shapes.Readiness),
                503: Reply(about="Not ready, and why", type=shapes.Readiness),
            },
        ),
        ("GET", "/metrics"): Operation(
            tag="health",
            security=_ACCOUNT,
            replies=_text("text/plain", "Prometheus text"),
            refuses=(401,),
        ),
        ("GET", "/openapi.json"): Operation(tag="health", replies=_ok(dict[str, Any], "This document")),
        ("GET", "/static/jvastai_root.cer"): Operation(
            tag="certificates",
            replies=_text("application/x-pem-file", "The root certificate"),
            refuses=(404,),
        ),
        ("POST", "/api/v0/sign_cert/"): Operation(
            tag="certificates",
            parameters=(Parameter(name="instance_id", about="CONTAINER_ID", type=int, required=True),),
            body_content_type="application/x-pem-file",
            replies=_text("application/x-pem-file", "A certificate for the instance"),
            refuses=(400, 403, 404, 408, 413),
        ),
        ("GET", "/api/v0/users/current"): user,
        ("GET", "/api/v0/users/current/"): user,
    }


OPERATIONS: Table = {
    **_own_calls(),
    **_worker_calls(),
    **_endpoint_calls(),
    **_workergroup_calls(),
    **_fleet_calls(),
    **_market_calls(),
}
