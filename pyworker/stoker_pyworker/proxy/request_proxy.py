"""Admits requests: ticket, workload, queue limit. An admitted request becomes an exchange."""

import math
import time
from collections.abc import Callable
from typing import Any

import msgspec

from stoker_pyworker.config import DEFAULT_WORKLOAD, WorkerConfig
from stoker_pyworker.model.health import HealthState
from stoker_pyworker.proxy import request_envelope
from stoker_pyworker.proxy.exchange import Exchange
from stoker_pyworker.proxy.hook_exchange import HookExchange
from stoker_pyworker.proxy.jobs import Job, Jobs
from stoker_pyworker.proxy.request_envelope import AuthData, ParsedRequest
from stoker_pyworker.proxy.routes import PreparedRoute, RouteIndex
from stoker_pyworker.proxy.sessions import OnCloseCall, Session, SessionOptions, Sessions
from stoker_pyworker.proxy.tickets import TicketVerifier
from stoker_pyworker.proxy.websocket_exchange import WebSocketExchange
from stoker_pyworker.proxy.worker_queue import RunningRequest, WorkerQueue, expected_wait_seconds
from stoker_pyworker.reporting.request_counts import Outcome, RequestCounts, Work
from stoker_pyworker.reporting.traces import RequestTraces
from stoker_pyworker.ticket_clock import TicketClock
from stoker_wire.errors.problem import Problem
from stoker_wire.http1.messages import JSON
from stoker_wire.http1.request import Request
from stoker_wire.http1.response_cycle import ResponseCycle
from stoker_wire.http1.upstream_connection import UpstreamError
from stoker_wire.http1.upstream_pool import UpstreamPool
from stoker_wire.security.fingerprint import TICKET_CHARS, fingerprint
from stoker_wire.security.ticket import Ticket
from stoker_wire.workload import WORKLOAD_HEADER

_ROUNDING = 1e-9


class RequestProxy:
    """Admits requests and owns the running exchanges."""

    def __init__(
        self,
        config: WorkerConfig,
        *,
        pool: UpstreamPool,
        routes: RouteIndex,
        jobs: Jobs,
        counts: RequestCounts,
        sessions: Sessions,
        queue: WorkerQueue,
        health: HealthState,
        verifier: TicketVerifier | None,
        clock: TicketClock,
        worker_id: int,
        on_model_failed: Callable[[UpstreamError], None],
        on_idle: Callable[[], None],
        traces: RequestTraces | None = None,
    ) -> None:
        """`verifier` None: requests need no ticket, for development. `on_idle` is called when the last exchange ends.
        `traces` None: no request is traced.
        """
        self.pool = pool
        self.routes = routes
        self.counts = counts
        self.sessions = sessions
        self.jobs = jobs
        self.queue = queue
        self.health = health
        self.verifier = verifier
        self.active: set[Exchange] = set()
        self.worker_id = b"%d" % worker_id
        self.worker_header = b"x-stoker-worker: %d\r\n" % worker_id
        self._clock = clock
        self._on_model_failed = on_model_failed
        self._on_idle = on_idle
        self._traces = traces
        self._tolerance = config.cost_tolerance
        self._websocket_seconds_max = config.job_seconds_max
        self._parallel = any(handler.allow_parallel_requests for handler in config.handlers)

    def handle(self, route: PreparedRoute, request: Request, cycle: ResponseCycle) -> None:
        """Admit or refuse the request.

        Raises:
            Problem: the refusal.
        """
        parsed = request_envelope.parse(request)
        session: Session | None = None
        job: Job | None = None
        if parsed.session_id is not None:
            session = self.sessions.use(parsed.session_id, parsed.auth.ticket)
            _, payload = route.prepare(parsed, 0.0)
            work = Work(session.work.request_idx, 0.0)
        elif route.in_job and (job := self.jobs.find(parsed.auth.ticket)) is not None:
            _check_harmless(job.refused, request, parsed)
            workload, payload = route.prepare(parsed, job.cost)
            self.jobs.use(job, workload)
            work = Work(job.work.request_idx, workload)
        else:
            ticket, work = self.authorize(parsed.auth)
            cost = work.workload
            try:
                _check_harmless(() if ticket is None else ticket.b, request, parsed)
                work.workload, payload = route.prepare(parsed, cost)
                self._check_cost(ticket, work)
                self._check_queue(route)
            except Problem:
                self.counts.reject(work)
                raise
            self.use_ticket(ticket)
            if route.in_job and parsed.auth.ticket:
                work, job = self._open_job(parsed.auth.ticket, ticket, work, cost)
            else:
                self.counts.accept(work)
        exchange = self._exchange(route, cycle, parsed, work, session or job, payload)
        if self._traces is not None:
            exchange.span = self._traces.begin(request, route.config.route, work.request_idx)
        if session is not None:
            session.running.add(exchange)
        elif job is not None:
            job.start_call(exchange, work.workload)
        self.active.add(exchange)
        cycle.listener = exchange
        if route.parallel:
            exchange.start()
        else:
            self.queue.join(exchange)

    def _open_job(self, text: str, ticket: Ticket | None, first: Work, cost: float) -> tuple[Work, Job]:
        """A job with the cost of its ticket as load, and the work of its first call, which adds none."""
        cost = max(cost, first.workload)  # without tickets, no cost bounds the workload
        whole = Work(first.request_idx, cost)
        self.counts.accept(whole)
        job = self.jobs.open(text, whole, cost, () if ticket is None else ticket.b)
        self.jobs.use(job, first.workload)
        return first, job

    def _exchange(
        self,
        route: PreparedRoute,
        cycle: ResponseCycle,
        parsed: ParsedRequest,
        work: Work,
        holder: Session | Job | None,
        payload: dict[str, Any] | None,
    ) -> Exchange:
        if route.websocket:
            seconds_max = self._websocket_seconds_max if holder is None else None
            return WebSocketExchange(self, cycle, route, parsed, work, holder, seconds_max=seconds_max)
        if route.answers_with_hook:
            return HookExchange(self, cycle, route, parsed, work, holder, payload)
        return Exchange(self, cycle, route, parsed, work, holder)

    def authorize(self, auth: AuthData) -> tuple[Ticket | None, Work]:
        """The ticket, and the work that it allows. The ticket is not marked as used yet.

        Raises:
            Problem: 401 without a valid ticket.
        """
        if self.verifier is None:
            return None, Work(auth.request_idx, auth.cost if auth.cost > 0 else DEFAULT_WORKLOAD)
        try:
            ticket = self.verifier.verify(auth.ticket, self._clock.now())
        except Problem:
            self.counts.refused += 1
            raise
        return ticket, Work(ticket.r, ticket.c)

    def read_job(self, ticket: str, *, end: bool) -> dict[str, Any]:
        """The state of the job of this ticket, which may have no call yet; `end` ends it.

        Raises:
            Problem: 401, no valid ticket; 410, the job has ended, or its ticket expired before its first call.
        """
        if self.jobs.find(ticket) is None and (unused := self._unused_ticket(ticket)) is not None:
            if end:
                self.use_ticket(unused)
                self.counts.reject(Work(unused.r, unused.c))
            return self.jobs.record_of_unused(unused.c, unused.x - self._clock.now())
        record = self.jobs.record(ticket)
        if end:
            self.jobs.end(ticket)
        return record

    def _unused_ticket(self, text: str) -> Ticket | None:
        """The ticket if it can open a job; None: it was used, has expired, or this worker needs no tickets."""
        if self.verifier is None:
            return None
        try:
            return self.verifier.verify(text, self._clock.now())
        except Problem as problem:
            if problem.code in {"ticket_used", "ticket_expired"}:
                return None
            raise

    def use_ticket(self, ticket: Ticket | None) -> None:
        """Mark the ticket as used."""
        if ticket is not None and self.verifier is not None:
            self.verifier.mark_used(ticket, self._clock.now())

    def reject_unrouted(self, request: Request) -> None:
        """Report the ticket of a request without a route as rejected, so that the engine stops counting its load."""
        try:
            parsed = request_envelope.parse(request)
            if parsed.session_id is not None:
                return
            _, work = self.authorize(parsed.auth)
        except Problem:
            return
        self.counts.reject(work)

    def on_close_call(
        self, options: SessionOptions, session_id: str, ticket: Ticket | None, work: Work
    ) -> OnCloseCall | None:
        """The request at the end of a session, checked like any other. None if the session has none.

        Raises:
            Problem: 422, the route is unknown or its payload invalid; 403, its workload exceeds the session's ticket.
        """
        if options.on_close_route is None:
            return None
        route = self.routes.exact.get(options.on_close_route.encode())
        if route is None or route.answers_with_hook:
            known = ", ".join(
                path.decode() for path, each in self.routes.exact.items() if not each.answers_with_hook
            )
            raise Problem(
                422,
                "session_invalid",
                f"on_close_route: expected a route that the model server answers ({known or 'this worker has none'})",
            )
        payload = options.on_close_payload
        body = {} if payload is None else dict(payload) if isinstance(payload, dict) else {"payload": payload}
        body.setdefault("session_id", session_id)
        parsed = ParsedRequest(AuthData(), None, msgspec.json.encode(body), JSON, is_json=True)
        call = Work(work.request_idx, 0.0)
        call.workload, _ = route.prepare(parsed, work.workload)
        self._check_cost(ticket, call)
        return OnCloseCall(
            options.on_close_route,
            bytes(parsed.body),
            parsed.content_type.decode(),
            work,
            parallel=route.parallel,
        )

    def check_ready(self) -> None:
        """Refuse new work while the model loads and while the worker drains.

        Raises:
            Problem: 503.
        """
        problem = self.health.refusal
        if problem is not None:
            raise problem

    def running_request(self) -> RunningRequest | None:
        """The current work of a worker that runs one request at a time.

        None if routes are parallel, or while sessions make the next work unpredictable.
        """
        if self._parallel or len(self.sessions):
            return None
        current = self.queue.current
        if current is None:
            return RunningRequest()
        assert isinstance(current, Exchange | OnCloseCall), "nothing else joins the queue"
        work = current.work
        return RunningRequest(
            work.workload, max(0.0, time.time() - work.started_at) if work.started_at else 0.0
        )

    # --- ExchangeOwner

    def exchange_ended(self, exchange: Exchange, outcome: Outcome) -> None:
        """Release the queue and the counted work of an exchange."""
        self.active.discard(exchange)
        if self._traces is not None and exchange.span is not None:
            self._traces.end(
                exchange.span,
                entered_at=exchange.entered_at,
                started_at=exchange.started_at,
                status=exchange.status,
                outcome=outcome,
            )
        if not exchange.route.parallel:
            self.queue.leave(exchange)
        if exchange.holder is not None:
            exchange.holder.call_ended(exchange, outcome)
        else:
            self.counts.finish(exchange.work, outcome)
        if not self.active:
            self._on_idle()

    def model_failed(self, fault: UpstreamError) -> None:
        """The model server did not answer a request."""
        self._on_model_failed(fault)

    # --- checks

    def _check_cost(self, ticket: Ticket | None, work: Work) -> None:
        if ticket is None or work.workload <= ticket.c * self._tolerance + _ROUNDING:
            return
        raise Problem(
            403,
            "ticket_cost_exceeded",
            f"this request's workload is {work.workload:g}, its ticket allows {ticket.c:g};"
            " route again with a cost that covers it",
            headers={WORKLOAD_HEADER: repr(work.workload)},
        )

    def _check_queue(self, route: PreparedRoute) -> None:
        self.check_ready()
        most = route.max_queue_time
        if most is None:
            return
        wait = expected_wait_seconds(self.counts.queue_load, self.health.perf)
        if wait > most:
            raise Problem(
                429,
                "queue_full",
                f"a request would wait {wait:.1f} s here, the limit is {most:g} s; route again",
                headers={"Retry-After": str(math.ceil(min(wait - most, 60)) or 1)},
            )


def _check_harmless(refused: tuple[str, ...], request: Request, parsed: ParsedRequest) -> None:
    """Refuse a request whose earlier copies broke workers.

    Raises:
        Problem: 422.
    """
    if not refused or not parsed.has_body:
        return
    if fingerprint(request.path.decode("latin-1"), bytes(parsed.body))[:TICKET_CHARS] in refused:
        raise Problem(
            422,
            "request_breaks_workers",
            "workers broke several times while they had this request, so none takes it for an hour; change the request,"
            " or find the fault with the endpoint's logs",
        )
