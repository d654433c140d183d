"""`POST /route/`, the hot path. A call is held until a worker is free or the client would time out.

Known endpoints are routed without a call to Temporal.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from aiohttp import web

from engine.api.keys import presented, unauthorised
from engine.api.parsing import FastRouteRequest, parse_route
from engine.engine import Engine, draw_index
from engine.http.calls import respond_later
from engine.openapi.declarations import CLIENT, ok
from engine.routing.client_keys import ClientKeyAccount
from engine.routing.endpoint import Endpoint
from engine.routing.requests.request_queue import QueuedRequest
from engine.routing.wait_reasons import why_waiting
from engine.temporal.rpc_errors import TEMPORAL_FAULTS
from stoker_wire.errors.problem import Problem
from stoker_wire.http.openapi import handles
from stoker_wire.http1.request import Request
from stoker_wire.http1.response_cycle import ResponseCycle
from stoker_wire.parsing.numbers import read_whole
from stoker_wire.route import Route, RouteRequest, Waiting
from stoker_wire.security.token import client_key_endpoint, endpoint_key_matches

if TYPE_CHECKING:  # belongs to the extra `otel`
    from opentelemetry.trace import Span

RouteAsked = FastRouteRequest | RouteRequest

_encode = msgspec.json.Encoder().encode


class Access(NamedTuple):
    """The endpoint of a call, and the named key that calls."""

    endpoint: Endpoint
    account: ClientKeyAccount | None = None
    """None: the endpoint's own key or an account's key, which have no limits."""


class RouteApi:
    """Answers route calls of clients and of the OpenAI proxy."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @handles(
        "POST /route/",
        tag="requests",
        security=CLIENT,
        body=RouteRequest,
        replies=ok(Route | Waiting, "A worker and a ticket for it, or why the request waits"),
        refuses=(400, 401, 404, 408, 413, 422, 429),
    )
    def handle(self, request: Request, cycle: ResponseCycle) -> None:
        """Route a request: a worker and a ticket, or the reason to wait."""
        asked = parse_route(request.body)
        endpoint = self._engine.directory.named(asked.endpoint)
        access = None if endpoint is None else self.access(request, endpoint, asked.api_key)
        if access is None:
            respond_later(cycle, self._locate_and_route(request, asked))
            return
        if self._engine.tracing is not None:
            respond_later(cycle, self._queue_and_finish(request, access, asked))
            return
        queued = self._queue(access, asked)
        if queued.worker is not None:
            cycle.respond(200, _encode(self._route_answer(access.endpoint, queued)))
        else:
            respond_later(cycle, self._finish(access.endpoint, queued, access.account))

    async def _locate_and_route(self, request: Request, asked: RouteAsked) -> dict[str, Any]:
        access = await self.locate(request, asked.endpoint, asked.api_key)
        if access is None:
            return _starting_answer(asked)
        return await self._queue_and_finish(request, access, asked)

    async def _queue_and_finish(self, request: Request, access: Access, asked: RouteAsked) -> dict[str, Any]:
        tracing = self._engine.tracing
        if tracing is None:
            return await self._finish(access.endpoint, self._queue(access, asked), access.account)
        attributes = {"stoker.endpoint": access.endpoint.name}
        with tracing.serving("stoker.route", request.headers, attributes) as span:
            queued = self._queue(access, asked)
            span.set_attribute("stoker.request_id", str(queued.request_idx))
            made = await self._finish(access.endpoint, queued, access.account)
            self._record_wait(span, access.endpoint, queued)
            span.set_attribute("stoker.outcome", "given" if "url" in made else made["reason"])
            return made

    def _queue(self, access: Access, asked: RouteAsked) -> QueuedRequest:
        """Check the limits of the call's key, and assign or queue the request.

        Raises:
            Problem: as `route`.
        """
        if access.account is not None:
            self._engine.dispatcher.admit(access.endpoint, access.account, asked, time.time())
        return self._dispatch(access.endpoint, asked, access.account)

    async def route(
        self,
        endpoint: Endpoint,
        asked: RouteAsked,
        *,
        account: ClientKeyAccount | None = None,
        placed: Callable[[QueuedRequest], None] | None = None,
        span: "Span | None" = None,
    ) -> dict[str, Any]:
        """The answer as JSON values: a route, or why the request waits.

        Args:
            account: the named key that calls, after its limits were checked.
            placed: called with the queued request before it waits and before its ticket is issued.
            span: of the call, which gets the time in the queue as a child; None: the call is not traced.

        Raises:
            Problem: 401, the key was revoked meanwhile; 404, the endpoint is being deleted; 422, workers broke with this
                request.
        """
        queued = self._dispatch(endpoint, asked, account)
        if placed is not None:
            placed(queued)
        made = await self._finish(endpoint, queued, account)
        if span is not None:
            self._record_wait(span, endpoint, queued)
        return made

    def _record_wait(self, span: "Span", endpoint: Endpoint, queued: QueuedRequest) -> None:
        """The time in the queue as a span; it may have begun with an earlier call of the request."""
        worker, tracing = queued.worker, self._engine.tracing
        if worker is None or tracing is None:
            return
        attributes: dict[str, str | float] = {
            "stoker.endpoint": endpoint.name,
            "stoker.request_id": str(queued.request_idx),
            "stoker.launch_id": worker.launch_id,
            "stoker.cost": queued.cost,
        }
        began = max(queued.arrived_at, queued.rerouted_at)
        tracing.record("stoker.wait", span, began, queued.assigned_at, attributes)

    def _dispatch(
        self, endpoint: Endpoint, asked: RouteAsked, account: ClientKeyAccount | None
    ) -> QueuedRequest:
        if endpoint.deleting or endpoint.gone:
            raise _deleted(endpoint)
        if account is not None and account.revoked:
            raise unauthorised()
        return self._engine.dispatcher.route(endpoint, asked, time.time(), account)

    async def _finish(
        self, endpoint: Endpoint, queued: QueuedRequest, account: ClientKeyAccount | None
    ) -> dict[str, Any]:
        """Hold the call if the request has no worker, and answer it."""
        engine = self._engine
        _check_refusal(queued)
        if queued.worker is None and not await self._hold(endpoint, queued, time.time()):
            if endpoint.gone or endpoint.deleting:
                raise _deleted(endpoint)
            _check_refusal(queued)
            if account is not None and account.revoked:
                raise unauthorised()
            endpoint.counters.routes_waiting += 1
            return waiting_answer(endpoint, queued, time.time(), stopping=engine.stopping)
        return self._route_answer(endpoint, queued)

    def access(self, request: web.Request | Request, endpoint: Endpoint, body_key: str) -> Access | None:
        """The access that the call has: that of the first of its keys that is valid for this endpoint."""
        for key in presented(request, body_key):
            if endpoint.accepts_key(key, time.time()):
                return Access(endpoint)
            account = endpoint.client_keys.find(key)
            if account is not None:
                return Access(endpoint, account)
            owner = self._engine.accounts.owner_of(key)
            if owner is not None and owner == endpoint.memo.owner:
                return Access(endpoint)
        return None

    async def _hold(self, endpoint: Endpoint, queued: QueuedRequest, now: float) -> bool:
        """Hold the call until a worker is assigned; False if none was assigned in time."""
        engine = self._engine
        full = engine.held_calls >= engine.settings.limits.held_calls_max
        if queued.turned_away or full or engine.stopping or engine.dispatcher.is_paused(queued, now):
            return False
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        assigned = False

        def wake(given: bool) -> None:
            nonlocal assigned
            # The assignment may happen in the same loop iteration as the timeout or the client's disconnect.
            assigned = assigned or given
            if not ended.done():
                ended.set_result(None)

        timer = loop.call_later(engine.settings.timing.hold_seconds, wake, False)
        engine.held_calls += 1
        superseded = False
        try:
            engine.dispatcher.hold(endpoint, queued, wake, now)
            await ended
            superseded = queued.wake is not None and queued.wake is not wake
            return assigned
        except asyncio.CancelledError:
            superseded = queued.wake is not None and queued.wake is not wake
            if assigned:
                engine.dispatcher.unassign(endpoint, queued, time.time())
            raise
        finally:
            timer.cancel()
            engine.held_calls -= 1
            if not superseded:
                engine.dispatcher.end_call(endpoint, queued, time.time())

    def _route_answer(self, endpoint: Endpoint, queued: QueuedRequest) -> dict[str, Any]:
        worker = queued.worker
        if worker is None:  # a second call for the same request withdrew the assignment
            return waiting_answer(endpoint, queued, time.time())
        ticket_issuer = self._engine.ticket_issuer
        waited = max(0.0, queued.assigned_at - queued.arrived_at)
        endpoint.counters.routes_given += 1
        endpoint.counters.waited_seconds += waited
        url = worker.route_url
        return {
            "url": url,
            "signature": ticket_issuer.signature(url, worker.launch_id, worker.sealed_key),
            "cost": queued.cost,
            "endpoint": endpoint.name,
            "reqnum": queued.reqnum,
            "request_idx": queued.request_idx,
            "ticket": ticket_issuer.ticket(
                endpoint_id=endpoint.id,
                endpoint_name=endpoint.name,
                launch_id=worker.launch_id,
                cost=queued.cost,
                request_idx=queued.request_idx,
                reqnum=queued.reqnum,
                now=queued.assigned_at,
                secret=worker.token_secret,
                refused=() if queued.is_identified else endpoint.broken_requests.refused(queued.assigned_at),
            ),
            "waited_ms": round(waited * 1000, 3),
            "worker_id": worker.instance_id,
        }

    async def locate(self, request: web.Request | Request, name: str, body_key: str = "") -> Access | None:
        """The endpoint of this name, if one of the call's keys gives access; None: Temporal does not answer.

        Unknown names are looked up in Temporal, because the state may be a second old, but only for callers with a key.

        Raises:
            Problem: 401 or 404.
        """
        engine = self._engine
        if not self.is_known(request, body_key):
            if not engine.endpoint_watcher.has_read_all and _has_client_key(request, body_key):
                return None
            raise unauthorised()
        try:
            endpoint = await engine.find(name)
        except TEMPORAL_FAULTS:
            return None
        if endpoint is None and not engine.endpoint_watcher.has_read_all:
            return None
        if endpoint is not None:
            access = self.access(request, endpoint, body_key)
            if access is not None:
                return access
            if not any(engine.accounts.owner_of(key) for key in presented(request, body_key)):
                raise unauthorised()
        message = f"there is no endpoint named {name[:80]!r} for this key; see the list of endpoints"
        raise Problem(404, "no_such_endpoint", message)

    def may_have_access(self, request: Request) -> bool:
        """Whether a call without access may turn out to have it, once Temporal was asked about its endpoint."""
        return not self._engine.endpoint_watcher.has_read_all or self.is_known(request)

    def is_known(self, request: web.Request | Request, body_key: str = "") -> bool:
        """Whether the call has any key of this deployment. Other callers learn nothing about endpoint names."""
        engine = self._engine
        for key in presented(request, body_key):
            if engine.accounts.owner_of(key) is not None:
                return True
            of_client = client_key_endpoint(key)
            if of_client is not None:
                endpoint = engine.directory.with_id(of_client)
                if endpoint is not None and endpoint.client_keys.find(key) is not None:
                    return True
            parts = key.split("-")
            if len(parts) != 5:
                continue
            endpoint_id, version = read_whole(parts[2]), read_whole(parts[3])
            if endpoint_id is None or version is None:
                continue
            if any(
                endpoint_key_matches(secret, key, endpoint_id, version) for secret in engine.settings.secrets
            ):
                return True
        return False


def _has_client_key(request: web.Request | Request, body_key: str) -> bool:
    return any(client_key_endpoint(key) is not None for key in presented(request, body_key))


def waiting_answer(
    endpoint: Endpoint, queued: QueuedRequest, now: float, *, stopping: bool = False
) -> dict[str, Any]:
    """The answer without a worker. It has no `url` key: the official client reads that key's presence as READY."""
    reason = why_waiting(endpoint, queued, now)
    status = "the engine is restarting; retry" if stopping else reason.sentence
    return {
        "endpoint": endpoint.name,
        "request_idx": queued.request_idx,
        "status": status,
        "reason": reason.code,
        "position": endpoint.request_queue.position(queued, endpoint.late_cutoff(now)),
        "eta_s": reason.eta_s,
    }


def _check_refusal(queued: QueuedRequest) -> None:
    if queued.refusal:
        raise Problem(422, "request_breaks_workers", queued.refusal)


def _starting_answer(asked: RouteAsked) -> dict[str, Any]:
    return {
        "endpoint": asked.endpoint,
        "request_idx": asked.request_idx or draw_index(),
        "status": "the engine does not know this endpoint and Temporal does not answer; retry",
        "reason": "booting",
        "position": 0,
        "eta_s": None,
    }


def _deleted(endpoint: Endpoint) -> Problem:
    return Problem(
        404, "endpoint_deleted", f"the endpoint {endpoint.name!r} is being deleted and takes no requests"
    )
