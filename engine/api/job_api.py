"""`/job/<endpoint>/<ticket>/…`: the calls of one job, which one worker serves with one ticket.

The ticket authenticates every call, so a client of another API needs no key: its base address is enough. The worker
bounds the job (`stoker_pyworker.proxy.jobs`). Any engine of the deployment serves the address.
"""

import base64
import binascii
import json
from typing import Any

import aiohttp
from aiohttp import web

from engine.api.openai_api import OpenAIApi, cost_of
from engine.api.openai_queue import OpenAIQueueEntry
from engine.api.parsing import answer
from engine.api.request_buffer import BufferedBody, RawBody
from engine.api.route_api import RouteApi
from engine.api.web_pages import is_preflight, preflight_answer
from engine.engine import Engine
from engine.openapi import openai_shapes
from engine.openapi.declarations import CLIENT, COST, ENDPOINT_NAME, ok
from engine.proxy import headers
from engine.proxy.client_answer import ClientAnswer, SignsOfLife
from engine.proxy.errors import JOBS
from engine.proxy.tunnel import handshake_fields, is_handshake, run_tunnel
from engine.proxy.worker_client import Call, Failure, WorkerFailed, worker_failed
from engine.routing.endpoint import Endpoint
from engine.routing.worker import KnownWorker
from stoker_wire.http.openapi import ANY, Parameter, Reply, handles
from stoker_wire.problem import Problem
from stoker_wire.security.ticket import TICKET_SECONDS

_AT_WORKER = "/pyworker/job/"
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_SWITCHING = 101
_FORGED = Problem(401, "ticket_forged", "the ticket in the address is not of this endpoint; open a job")
_GONE = Problem(410, "job_gone", "the worker of this job no longer exists; open another job")
_TICKET = Parameter(name="ticket", about="The ticket in the job's address", where="path")
_JOB_CALL: dict[str, Any] = {
    "tag": "requests",
    "parameters": (ENDPOINT_NAME, _TICKET),
    "replies": {ANY: Reply(about="The model's own reply, with its own status", content_type="*/*")},
    "refuses": (400, 401, 403, 404, 405, 408, 410, 413, 429, 502, 503, 504),
}


class JobApi:
    """Opens jobs, and passes their calls to the worker."""

    def __init__(self, engine: Engine, route_api: RouteApi, openai_api: OpenAIApi) -> None:
        self._engine = engine
        self._route_api = route_api
        self._openai = openai_api

    @handles(
        "POST /job/{endpoint}",
        tag="requests",
        security=CLIENT,
        parameters=(ENDPOINT_NAME, COST),
        replies=ok(openai_shapes.OpenedJob, "The job's address", 201),
        refuses=(400, 401, 404, 415, 429, 503),
    )
    async def open(self, request: web.Request) -> web.Response:
        """Choose a worker for a job, and answer the address that serves its calls."""
        access = await self._openai.access_of(request)
        endpoint, cost = access.endpoint, cost_of(request)
        with OpenAIQueueEntry(self._engine, self._route_api, access) as entry:
            cost = endpoint.served.job_cost if cost is None else cost
            entry.admit(cost)
            route = await entry.find_worker(cost)
            if entry.worker is not None and entry.worker.is_official:
                message = "the workers of this endpoint run the official package, which has no jobs"
                raise Problem(415, "no_jobs", message)
            entry.show_ticket()
        origin = self._engine.settings.public_url or str(request.url.origin())
        opened = {
            "url": f"{origin}{JOBS}{endpoint.name}/{route['ticket']}",
            "worker_url": f"{route['url']}{_AT_WORKER}{route['ticket']}",
            "worker_id": route["worker_id"],
            "request_idx": route["request_idx"],
            "cost": route["cost"],
            "opens_within_seconds": TICKET_SECONDS,
        }
        return answer(opened, 201)

    @handles(
        "OPTIONS /job/{endpoint}",
        "OPTIONS /job/{endpoint}/{ticket}",
        tag="requests",
        parameters=(ENDPOINT_NAME,),
        replies={204: Reply(about="The methods and headers that a web page may send", content_type="")},
        refuses=(404,),
    )
    async def preflight(self, request: web.Request) -> web.Response:
        """Answer the preflight of a browser. No key is needed."""
        return preflight_answer(request)

    @handles(*(f"{method} /job/{{endpoint}}/{{ticket}}" for method in ("GET", "DELETE")), **_JOB_CALL)
    @handles(*(f"{method} /job/{{endpoint}}/{{ticket}}/{{path:.*}}" for method in _METHODS), **_JOB_CALL)
    async def call(self, request: web.Request) -> web.StreamResponse:
        """Pass a call of a job to its worker; without a path, read or end the job."""
        if is_preflight(request):
            return preflight_answer(request)
        endpoint, worker = self.find(request.match_info["endpoint"], request.match_info["ticket"])
        rest = request.rel_url.raw_path[len(JOBS) :].partition("/")[2]
        query = request.rel_url.raw_query_string
        url = worker.route_url + _AT_WORKER + rest + (f"?{query}" if query else "")
        fields = headers.to_worker(request.headers)
        if is_handshake(request):
            fields.extend(handshake_fields(request))
            return await self._send(request, endpoint, url, fields, None)
        with BufferedBody(self._openai.bodies, endpoint.memo.owner) as body:
            await body.read(request)
            if body.content_type:
                fields["Content-Type"] = body.content_type
            return await self._send(request, endpoint, url, fields, body.data)

    async def _send(
        self, request: web.Request, endpoint: Endpoint, url: str, fields: Any, body: bytes | None
    ) -> web.StreamResponse:
        silence = endpoint.config.silence_seconds_max
        parts = None
        if body or (body is not None and request.method in {"POST", "PUT", "PATCH"}):
            fields["Content-Length"] = str(len(body))
            parts = RawBody(body).content
        call = Call(request.method, url, fields, parts, silence, lambda: None)
        reply = ClientAnswer(request, SignsOfLife.NONE, lambda: "")
        try:
            async with await self._openai.client.send(call) as answered:
                if answered.status == _SWITCHING and is_handshake(request):
                    return await run_tunnel(self._openai.tunnels, request, answered, silence)
                try:
                    first = await answered.content.readany()
                except (aiohttp.ClientError, TimeoutError) as fault:
                    raise worker_failed(fault) from None
                return await reply.pass_on(answered, first)
        except WorkerFailed as fault:
            raise _problem_of(fault) from None

    def find(self, name: str, ticket: str) -> tuple[Endpoint, KnownWorker]:
        """The endpoint of this name and the worker of the ticket.

        Raises:
            Problem: 401, not a ticket of this endpoint; 410, its worker is gone.
        """
        endpoint = self._engine.directory.named(name)
        launch_id = _launch_of(ticket)
        if endpoint is None or not launch_id:
            raise _FORGED
        worker = endpoint.workers.get(launch_id)
        if worker is None or not worker.route_url:
            raise _GONE
        issuer = self._engine.ticket_issuer
        if issuer.ticket_of(ticket, endpoint_id=endpoint.id, launch_id=launch_id) is None:
            raise _FORGED
        return endpoint, worker


def _launch_of(ticket: str) -> str:
    """The launch that a ticket names; "" if it is not readable. The signature is not checked."""
    body = ticket.partition(".")[0]
    try:
        fields = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return ""
    launch_id = fields.get("w") if isinstance(fields, dict) else None
    return launch_id if isinstance(launch_id, str) else ""


def _problem_of(fault: WorkerFailed) -> Problem:
    if fault.failure == Failure.CERTIFICATE:
        return Problem(
            502, "worker_certificate", f"the certificate of the job's worker is not trusted: {fault}"
        )
    if fault.failure == Failure.SILENT:
        message = (
            "the worker sent nothing for silence_seconds_max of the endpoint, and the call was cancelled"
        )
        return Problem(504, "worker_silent", message)
    return Problem(502, "worker_failed", f"the job's worker gave no answer: {fault}; open another job")
