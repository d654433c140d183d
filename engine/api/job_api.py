"""`/job/<endpoint>/<ticket>/…`: the calls of one job, which one worker serves with one ticket.

The ticket authenticates every call, so a client of another API needs no key: its base address is enough. The worker
bounds the job (`stoker_pyworker.proxy.jobs`). Any engine of the deployment serves the address.
"""

import asyncio
import base64
import binascii
import json
from typing import Any
from urllib.parse import unquote

from engine.api.cors import CorsPolicy, is_preflight
from engine.api.keys import text
from engine.api.openai_api import OpenAIApi, cost_of
from engine.api.openai_queue import OpenAIQueueEntry
from engine.api.problems import problem_of
from engine.api.request_buffer import BufferedBody
from engine.api.route_api import RouteApi
from engine.engine import Engine
from engine.http.calls import respond_later
from engine.openapi import openai_shapes
from engine.openapi.declarations import CLIENT, COST, ENDPOINT_NAME, ok
from engine.proxy import headers
from engine.proxy.client_answer import ClientAnswer
from engine.proxy.errors import JOBS
from engine.proxy.tunnel import Tunnel, handshake_fields
from engine.proxy.worker_client import Call, Failure, WorkerFailed
from engine.routing.endpoint import Endpoint
from engine.routing.worker import KnownWorker
from stoker_wire.errors.problem import Problem
from stoker_wire.http.openapi import ANY, Parameter, Reply, handles
from stoker_wire.http1.messages import Header
from stoker_wire.http1.request import Request
from stoker_wire.http1.response_cycle import ResponseCycle
from stoker_wire.security.ticket import TICKET_SECONDS

_AT_WORKER = "/pyworker/job/"
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_SWITCHING = 101
_WITH_BODY = frozenset({b"POST", b"PUT", b"PATCH"})
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

    def __init__(self, engine: Engine, route_api: RouteApi, openai_api: OpenAIApi, cors: CorsPolicy) -> None:
        self._engine = engine
        self._cors = cors
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
    def open(self, request: Request, cycle: ResponseCycle) -> None:
        """Choose a worker for a job, and answer the address that serves its calls."""
        respond_later(cycle, self._open(request), status=201, headers=self._cors.cors_fields(request))

    async def _open(self, request: Request) -> dict[str, Any]:
        access = await self._openai.access_of(request, unquote(text(request.path[len(JOBS) :])))
        endpoint, cost = access.endpoint, cost_of(request)
        _require_jobs(endpoint)
        with OpenAIQueueEntry(self._engine, self._route_api, access) as entry:
            cost = endpoint.served.job_cost if cost is None else cost
            entry.admit(cost)
            route = await entry.find_worker(cost)
            if entry.worker is not None and entry.worker.is_official:
                message = "the workers of this endpoint run the official package, which has no jobs"
                raise Problem(415, "no_jobs", message)
            _require_jobs(endpoint)  # the first worker may have reported its routes meanwhile
            entry.show_ticket()
        origin = self._engine.settings.public_url or f"http://{text(request.header(b'host') or b'')}"
        return {
            "url": f"{origin}{JOBS}{endpoint.name}/{route['ticket']}",
            "worker_url": f"{route['url']}{_AT_WORKER}{route['ticket']}",
            "worker_id": route["worker_id"],
            "request_idx": route["request_idx"],
            "cost": route["cost"],
            "opens_within_seconds": TICKET_SECONDS,
        }

    @handles(
        "OPTIONS /job/{endpoint}",
        "OPTIONS /job/{endpoint}/{ticket}",
        tag="requests",
        parameters=(ENDPOINT_NAME,),
        replies={204: Reply(about="The methods and headers that a web page may send", content_type="")},
        refuses=(404,),
    )
    def preflight(self, request: Request, cycle: ResponseCycle) -> None:
        """Answer the preflight of a browser. No key is needed."""
        self._cors.answer_preflight(request, cycle)

    @handles(*(f"{method} /job/{{endpoint}}/{{ticket}}" for method in ("GET", "DELETE")), **_JOB_CALL)
    @handles(*(f"{method} /job/{{endpoint}}/{{ticket}}/{{path:.*}}" for method in _METHODS), **_JOB_CALL)
    def call(self, request: Request, cycle: ResponseCycle) -> None:
        """Pass a call of a job to its worker; without a path, read or end the job."""
        if is_preflight(request):
            self._cors.answer_preflight(request, cycle)
            return
        name, _, rest = text(request.path[len(JOBS) :]).partition("/")
        endpoint, worker = self.find(unquote(name), unquote(rest.partition("/")[0]))
        reply = ClientAnswer(cycle, self._cors.cors_fields(request))
        reply.task = asyncio.get_running_loop().create_task(
            self._run(request, reply, endpoint, worker.route_url, rest)
        )

    async def _run(
        self, request: Request, reply: ClientAnswer, endpoint: Endpoint, origin: str, rest: str
    ) -> None:
        try:
            with BufferedBody(request):
                await self._send(request, reply, endpoint, origin, rest)
        except Exception as fault:  # noqa: BLE001 - every fault has a problem
            problem = _problem_of(fault) if isinstance(fault, WorkerFailed) else problem_of(fault, JOBS)
            if reply.begun:
                reply.cycle.abort()
            else:
                reply.cycle.respond_problem(problem)

    async def _send(
        self, request: Request, reply: ClientAnswer, endpoint: Endpoint, origin: str, rest: str
    ) -> None:
        silence = endpoint.config.silence_seconds_max
        fields: list[Header] = headers.to_worker(request.headers)
        tunnel = None
        if request.websocket:
            fields += handshake_fields(request)
            tunnel = Tunnel(self._openai.tunnels, reply.cycle, silence, reply.cors)
        kind = request.header(b"content-type")
        if kind is not None:
            fields.append((b"content-type", kind))
        if request.body or request.method in _WITH_BODY:
            fields.append((b"content-length", b"%d" % len(request.body)))
        query = b"?" + request.query if request.query else b""
        call = Call(
            method=request.method,
            origin=origin,
            target=_AT_WORKER.encode() + rest.encode("utf-8", "surrogateescape") + query,
            headers=fields,
            body=(request.body,) if request.body else (),
            silence_seconds_max=silence,
            sent=lambda: None,
            switch=None if tunnel is None else tunnel.switch,
        )
        with await self._openai.client.send(call) as answered:
            if tunnel is not None and answered.status == _SWITCHING:
                reply.status = _SWITCHING
                await tunnel.ended
                return
            await reply.pass_on(answered, await answered.read())

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


def _require_jobs(endpoint: Endpoint) -> None:
    """Refuse a job on an endpoint whose workers report no route for jobs: its first call would be refused."""
    if endpoint.served.takes_jobs is False:
        message = "no route of this endpoint takes jobs; declare one with in_job=True in the worker file"
        raise Problem(415, "no_jobs", message)


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
