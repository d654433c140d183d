"""`/openai/<endpoint>/…`: routes calls of OpenAI's and other model APIs to workers and streams the answers back."""

import asyncio
import random
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote
from weakref import WeakKeyDictionary

import structlog

from engine.api.cors import CorsPolicy, is_preflight
from engine.api.keys import text
from engine.api.openai_queue import OpenAIQueueEntry
from engine.api.problems import problem_of
from engine.api.request_buffer import AccountBudget, BufferedBody, RequestBuffer, envelope
from engine.api.route_api import Access, RouteApi
from engine.engine import Engine
from engine.openapi import openai_shapes
from engine.openapi.declarations import AFFINITY, CLIENT, COST, ENDPOINT_NAME
from engine.proxy import headers
from engine.proxy.affinity_key import AFFINITY_FIELD, affinity_key
from engine.proxy.client_answer import ClientAnswer, SignsOfLife
from engine.proxy.dialects import Dialect, dialect_of, streams
from engine.proxy.errors import PREFIX, read_problem
from engine.proxy.retry_budget import RetryBudget, backoff_seconds
from engine.proxy.tunnel import Tunnel, handshake_fields
from engine.proxy.worker_client import Call, Failure, WorkerAnswer, WorkerClient, WorkerFailed
from engine.proxy.worker_path import path_of
from engine.routing.endpoint import Endpoint
from stoker_wire.errors.problem import Problem
from stoker_wire.http.openapi import ANY, Reply, handles
from stoker_wire.http1.request import Request
from stoker_wire.http1.response_cycle import ResponseCycle
from stoker_wire.parsing.numbers import read_number
from stoker_wire.route import COST_MAX
from stoker_wire.workload import WORKLOAD_HEADER, ServedRoute

if TYPE_CHECKING:  # belongs to the extra `otel`
    from opentelemetry.trace import Span

log = structlog.get_logger("engine.api.openai_api")

ATTEMPTS_MAX = 4
_COST_HEADER = "X-Stoker-Cost"
_COST_FIELD = _COST_HEADER.lower().encode()
_KEEP_ALIVE_HEADER = "X-Stoker-Keep-Alive"
_KEEP_ALIVE_FIELD = _KEEP_ALIVE_HEADER.lower().encode()
"""`spaces`: a call without a stream gets white space while it waits. Its status is then always 200."""
_WORKER_HEADER = b"x-stoker-worker"
"""Present on the model's answers, absent on answers that the worker makes itself."""
_SWITCHING = 101
_WORKLOAD_FIELD = WORKLOAD_HEADER.lower().encode()
_WITH_BODY = frozenset({b"POST", b"PUT", b"PATCH"})
_ERROR_BYTES_MAX = 64 * 1024

_OTHER_METHODS = ("GET", "PUT", "PATCH", "DELETE")
_MODEL_CALL: dict[str, Any] = {
    "tag": "requests",
    "security": CLIENT,
    "parameters": (ENDPOINT_NAME, COST, AFFINITY),
    "replies": {ANY: Reply(about="The model's own reply, with its own status", content_type="*/*")},
    "refuses": (400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 502, 503, 504),
    "problem": openai_shapes.OpenAIProblem,
}


class OpenAIApi:
    """Handles `/openai/…`. When a client disconnects, its call to the worker is cancelled."""

    def __init__(
        self, engine: Engine, route_api: RouteApi, cors: CorsPolicy, tls: ssl.SSLContext | None = None
    ) -> None:
        self._engine = engine
        self._route_api = route_api
        self._cors = cors
        self.bodies = RequestBuffer(engine.settings.limits)
        self.client = WorkerClient(tls)
        self.tunnels: set[Tunnel] = set()
        """Open WebSockets."""
        self._budgets: WeakKeyDictionary[Endpoint, RetryBudget] = WeakKeyDictionary()

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.__aexit__(kind, fault, trace)

    @handles(
        "OPTIONS /openai/{endpoint}/{path:.+}",
        tag="requests",
        parameters=(ENDPOINT_NAME,),
        replies={204: Reply(about="The methods and headers that a web page may send", content_type="")}
        | _MODEL_CALL["replies"],
        refuses=_MODEL_CALL["refuses"],
        problem=openai_shapes.OpenAIProblem,
    )
    def preflight(self, request: Request, cycle: ResponseCycle) -> None:
        """Answer the preflight of a browser. No key is needed. Other calls with OPTIONS go to a worker."""
        if is_preflight(request):
            self._cors.answer_preflight(request, cycle)
        else:
            self.call(request, cycle)

    # -- calls

    @handles("POST /openai/{endpoint}/{path:.+}", body=dict[str, Any], **_MODEL_CALL)
    @handles(*(f"{method} /openai/{{endpoint}}/{{path:.+}}" for method in _OTHER_METHODS), **_MODEL_CALL)
    def call(self, request: Request, cycle: ResponseCycle) -> None:
        """Route the request, call the worker and pass its answer on. Until the first byte, a failed worker is replaced."""
        reply = ClientAnswer(cycle, self._cors.cors_fields(request))
        reply.task = asyncio.get_running_loop().create_task(self._run(request, reply))

    async def _run(self, request: Request, reply: ClientAnswer) -> None:
        try:
            await self._trace(request, reply)
        except Exception as fault:  # noqa: BLE001 - every fault has a problem
            reply.stop_signs()
            problem = problem_of(fault, text(request.path))
            if reply.begun:
                reply.cycle.abort()
            else:
                reply.cycle.respond_problem(problem)

    async def _trace(self, request: Request, reply: ClientAnswer) -> None:
        name, _, rest = text(request.path[len(PREFIX) :]).partition("/")
        access = await self.access_of(request, unquote(name))
        path, served = path_of(access.endpoint, request, "/" + rest)
        tracing = self._engine.tracing
        if tracing is None:
            await self._serve(request, reply, access, path, served)
            return
        attributes = {"stoker.endpoint": access.endpoint.name, "http.route": served.path if served else ""}
        with tracing.serving("stoker.openai", request.headers, attributes) as span:
            await self._serve(request, reply, access, path, served, span)
            span.set_attribute("http.response.status_code", reply.status)

    async def _serve(
        self,
        request: Request,
        reply: ClientAnswer,
        access: Access,
        path: str,
        served: ServedRoute | None,
        span: "Span | None" = None,
    ) -> None:
        endpoint = access.endpoint
        with (
            BufferedBody(request) as body,
            # Calls without a body are equal and harmless, so a copy of one says nothing about the others.
            OpenAIQueueEntry(
                self._engine, self._route_api, access, lambda: body.fingerprint(path) if body.size else ""
            ) as entry,
        ):
            entry.span = span
            payload = None if request.websocket else body.read()
            reply.dialect = dialect_of(path)
            reply.signs = _signs(request, path, payload, reply.dialect)
            reply.reason = lambda: entry.reason
            budget = self._budgets.setdefault(endpoint, RetryBudget())
            call = _OpenAICall(
                engine=self._engine,
                client=self.client,
                endpoint=endpoint,
                entry=entry,
                body=body,
                payload=payload,
                request=request,
                path=path,
                served=served,
                budget=budget,
                tunnels=self.tunnels,
            )
            reply.start_signs()
            try:
                await call.serve(reply)
            except Problem as problem:
                reply.stop_signs()
                if not reply.begun:
                    raise
                if self._engine.tracing is not None and span is not None:
                    self._engine.tracing.fail(span, problem.code)
                reply.fail(problem)

    async def access_of(self, request: Request, name: str) -> Access:
        """The endpoint of this name, and the key of the call.

        Raises:
            Problem: 401, 404 or 503.
        """
        if isinstance(request.budget, AccountBudget) and request.budget.access is not None:
            return request.budget.access
        known = self._engine.directory.named(name)
        access = None if known is None else self._route_api.access(request, known, "")
        if access is None:
            access = await self._route_api.locate(request, name)
        if access is None:
            message = "the engine has just started and does not know its endpoints yet; try again"
            raise Problem(503, "starting", message, headers={"Retry-After": "2"})
        return access


@dataclass(slots=True, kw_only=True, eq=False)
class _OpenAICall:
    """One call: its attempts on workers until one answers."""

    engine: Engine
    client: WorkerClient
    endpoint: Endpoint
    entry: OpenAIQueueEntry
    body: BufferedBody
    payload: dict[str, Any] | None
    request: Request
    path: str
    served: ServedRoute | None
    budget: RetryBudget
    tunnels: set[Tunnel]
    repriced: bool = False

    async def serve(self, reply: ClientAnswer) -> None:
        """The worker's answer, passed on.

        Raises:
            Problem: no worker became available.
        """
        self.budget.request()
        cost = cost_of(self.request)
        if cost is None:
            served = self.endpoint.served
            cost = served.workload(self.served, self.path, self.payload, self.body.size)
        self.entry.admit(cost)
        given = self.request.header(AFFINITY_FIELD)
        prefix_bytes = self.endpoint.config.affinity_prefix_bytes
        affinity = affinity_key("" if given is None else text(given), self.payload, prefix_bytes)
        attempt = 0
        while True:
            route = await self.entry.find_worker(cost, affinity)
            try:
                tunnel = self._tunnel(reply) if self.request.websocket else None
                with await self._ask(route, reply, tunnel) as answered:
                    if self._reprices(answered):
                        continue
                    if tunnel is not None and answered.status == _SWITCHING:
                        reply.status = _SWITCHING
                        await tunnel.ended
                        return
                    first = await _first_bytes(answered)
                    if not self._is_retried(answered, first, attempt):
                        self.body.drop()
                        reply.stop_signs()
                        await reply.pass_on(answered, first)
                        return
            except WorkerFailed as fault:
                self._failed(route, fault, attempt)
            await asyncio.sleep(backoff_seconds(attempt, random.random()))
            attempt += 1

    def _tunnel(self, reply: ClientAnswer) -> Tunnel:
        silence = self.endpoint.config.silence_seconds_max
        return Tunnel(self.tunnels, reply.cycle, silence, reply.cors)

    async def _ask(self, route: dict[str, Any], reply: ClientAnswer, tunnel: Tunnel | None) -> WorkerAnswer:
        """The head of the worker's answer.

        Raises:
            WorkerFailed: it has none.
        """
        call = self._call_to(route, reply, tunnel)
        try:
            return await self.client.send(call)
        except WorkerFailed as fault:
            if fault.failure != Failure.BROKE_OFF or not call.reused:
                raise
        # The worker may have closed an idle connection as the request came. A ticket opens once, so a
        # request that was read nevertheless is refused and not run again.
        answered = await self.client.send(call, fresh=True)
        if answered.status == 401 and answered.header(_WORKER_HEADER) is None:
            answered.close()
            raise WorkerFailed(Failure.BROKE_OFF, "the worker had read the request")
        return answered

    def _call_to(self, route: dict[str, Any], reply: ClientAnswer, tunnel: Tunnel | None) -> Call:
        request, body = self.request, self.body
        worker = self.entry.worker
        fields = headers.to_worker(request.headers)
        if tunnel is not None:
            fields += handshake_fields(request)
        if reply.may_begin_early:  # the head may be sent before the coding is known
            fields = [field for field in fields if field[0] != b"accept-encoding"]
        fields = self.entry.add_trace(fields)
        data = self._renamed(worker.launch_id if worker is not None else "")
        sent: tuple[bytes, ...]
        if worker is not None and worker.is_official:
            if request.method != b"POST" or not body.is_json or (self.served and self.served.in_job):
                message = (
                    "the workers of this endpoint run the official package, which takes only POST with JSON"
                )
                raise Problem(415, "json_only", message)
            sent = envelope(route, data)
            fields.append((b"content-type", b"application/json"))
        else:
            sent = (data,) if data else ()
            fields.append((b"x-stoker-auth", route["ticket"].encode()))
            if body.content_type:
                fields.append((b"content-type", body.content_type.encode("utf-8", "surrogateescape")))
        if sent or request.method in _WITH_BODY:
            fields.append((b"content-length", b"%d" % sum(map(len, sent))))
        query = headers.query_to_worker(request.query)
        path = self.path.encode("utf-8", "surrogateescape")
        return Call(
            method=request.method,
            origin=route["url"],
            target=path + b"?" + query if query else path,
            headers=fields,
            body=sent,
            silence_seconds_max=self.endpoint.config.silence_seconds_max,
            sent=self.entry.show_ticket,
            switch=None if tunnel is None else tunnel.switch,
        )

    def _renamed(self, launch_id: str) -> bytes:
        """The body, with the name of the worker's model in place of the endpoint's name."""
        served = self.endpoint.served
        models = served.models_of(launch_id) or served.models
        alias = self.endpoint.name
        if not models or alias in models or not self.body.names_model(alias, self.payload):
            return self.body.data
        return self.body.rename_model(alias, models[0])

    def _is_retried(self, answered: WorkerAnswer, first: bytes, attempt: int) -> bool:
        """Whether the request goes to another worker, or again with the right workload, instead of to the client.

        Raises:
            Problem: the worker itself refused the request, or what it says is no answer.
        """
        status = answered.status
        if status < 400:
            return False
        if answered.header(_WORKER_HEADER) is not None:
            # A 503 is a model server that does not take requests now. Every other status is the model's answer.
            return status == 503 and self._retries_elsewhere(attempt)
        problem = read_problem(status, first)
        if problem is None:  # an official worker sends the model's answers without that header
            is_full = status == 429 and not first  # its own refusal has no body
            if (status == 503 or is_full) and self._retries_elsewhere(attempt):
                return True
            if status < 500:
                self.entry.refused()
            return False
        if status == 502:  # its model server did not answer
            raise WorkerFailed(Failure.MALFORMED, problem.code)
        self.entry.refused()
        if status in {429, 503} and self._may_retry(attempt):
            self.entry.return_ticket()
            return True
        if status == 401:  # of the ticket, not of the client's key
            raise Problem(502, "worker_refused", f"the worker refused its ticket: {problem.message}")
        passed = {name: answered.header(name.lower().encode()) for name in ("Retry-After", "Allow")}
        problem.headers = {name: value for name, value in passed.items() if value is not None}
        raise problem

    def _reprices(self, answered: WorkerAnswer) -> bool:
        """Whether the request is routed once more, with the workload that the refusal names."""
        workload = self._learn(answered)
        if (
            answered.status != 403
            or answered.header(_WORKER_HEADER) is not None
            or workload is None
            or self.repriced
        ):
            return False
        self.repriced = True
        self.entry.return_ticket(cost=workload)
        return True

    def _learn(self, answered: WorkerAnswer) -> float | None:
        """The workload that the worker computed, if it says so; the next request is booked by it."""
        workload = read_number(answered.header(_WORKLOAD_FIELD) or "")
        if workload is None or not 0 <= workload <= COST_MAX:
            return None
        self.endpoint.served.learn(self.served, self.path, self.payload, workload)
        return workload

    def _may_retry(self, attempt: int) -> bool:
        return attempt + 1 < ATTEMPTS_MAX and self.budget.take()

    def _retries_elsewhere(self, attempt: int) -> bool:
        """Return the ticket if another worker may take the request."""
        worker = self.entry.worker
        if worker is None:
            return False
        others = any(each.launch_id != worker.launch_id for each in self.endpoint.candidates)
        if self.entry.tried or not others or not self._may_retry(attempt):
            return False
        self.entry.return_ticket()
        return True

    def _failed(self, route: dict[str, Any], fault: WorkerFailed, attempt: int) -> None:
        """Make the request ready for another attempt.

        Raises:
            Problem: no worker became available.
        """
        log.warning(
            "openai_worker_failed",
            endpoint=self.endpoint.name,
            worker=route["worker_id"],
            failure=fault.failure,
            error=str(fault),
        )
        if fault.failure == Failure.SILENT:
            seconds = self.endpoint.config.silence_seconds_max
            message = (
                f"the worker sent nothing for {seconds:g} s and the request was cancelled; it is not run again; "
                "raise silence_seconds_max of the endpoint if the model needs longer"
            )
            raise Problem(504, "worker_silent", message)
        if fault.failure == Failure.CERTIFICATE:
            self.entry.return_ticket()
            if self.entry.has_alternative and self._may_retry(attempt):
                return
            message = (
                f"the certificate of the worker at {route['url']} is not trusted: {fault}; give the worker a "
                "certificate of the engine's authority (POST /api/v0/sign_cert/), or let it speak http"
            )
            raise Problem(502, "worker_certificate", message)
        if fault.failure == Failure.NOT_FINAL:
            message = f"the worker's answer is none to this call: {fault}"
            raise Problem(502, "worker_answers_nothing", message)
        if not self._may_retry(attempt):
            message = (
                f"{attempt + 1} workers failed this request, the last one: {fault}; see the endpoint's logs"
            )
            raise Problem(502, "workers_failed", message)
        self.entry.failed_url = "" if fault.failure == Failure.MALFORMED else route["url"]


def _signs(request: Request, path: str, payload: dict[str, Any] | None, dialect: Dialect) -> SignsOfLife:
    if streams(path, payload):
        return SignsOfLife.SPACES if dialect is Dialect.OLLAMA else SignsOfLife.COMMENTS
    field = request.header(_KEEP_ALIVE_FIELD)
    asked = "" if field is None else text(field)
    if not asked:
        return SignsOfLife.NONE
    if asked.strip().lower() != SignsOfLife.SPACES.value:
        message = f"{_KEEP_ALIVE_HEADER}: 'spaces' was expected, {asked[:40]!r} came"
        raise Problem(400, "invalid_args", message)
    return SignsOfLife.SPACES


def _check_final(status: int) -> None:
    if 300 <= status < 400:
        message = f"the model server answered with a redirect ({status}), which is not followed"
        raise Problem(502, "worker_redirects", message)
    if status < 200:
        message = f"the model server answered with status {status}, which is no answer to this call"
        raise Problem(502, "worker_answers_nothing", message)


async def _first_bytes(answered: WorkerAnswer) -> bytes:
    """The first bytes of the answer; all of it where it may be a short error.

    Raises:
        WorkerFailed: the answer broke off.
        Problem: it is no final answer.
    """
    _check_final(answered.status)
    length = answered.length
    is_short = answered.status >= 400 and length is not None and length <= _ERROR_BYTES_MAX
    return await (answered.read_all() if is_short else answered.read())


def cost_of(request: Request) -> float | None:
    """The load that the client names; None: it does not."""
    given = [value for name, value in request.headers if name == _COST_FIELD]
    if not given:
        return None
    named = text(b", ".join(given))
    cost = read_number(named)
    if cost is None or not 0 <= cost <= COST_MAX:
        raise Problem(
            400,
            "invalid_args",
            f"{_COST_HEADER}: must be a number from 0 to {COST_MAX:g} (got {named[:40]!r})",
        )
    return cost
