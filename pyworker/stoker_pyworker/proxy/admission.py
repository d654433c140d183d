"""A request's way in: what is allowed here, what it weighs, whether there is room; then it becomes an exchange."""

import math
import time

import msgspec

from stoker_pyworker.clock import TicketClock
from stoker_pyworker.config import DEFAULT_WORKLOAD, WorkerConfig
from stoker_pyworker.http.connection import ClientConnection
from stoker_pyworker.http.messages import JSON
from stoker_pyworker.http.outgoing import OriginFault, Pool
from stoker_pyworker.http.request import Request
from stoker_pyworker.model.health import HealthState
from stoker_pyworker.proxy import request_envelope
from stoker_pyworker.proxy.exchange import Exchange
from stoker_pyworker.proxy.hook_exchange import HookExchange
from stoker_pyworker.proxy.request_envelope import Asked, AuthData
from stoker_pyworker.proxy.routes import PreparedRoute
from stoker_pyworker.proxy.sessions import ClosingCall, Opening, Session, Sessions
from stoker_pyworker.proxy.tickets import TicketGate
from stoker_pyworker.proxy.worker_queue import QueueSlot, WorkerQueue, expected_wait_seconds
from stoker_pyworker.reporting.request_counts import Outcome, RequestCounts, Work
from stoker_wire.problem import Problem
from stoker_wire.security.ticket import Ticket

_ROUNDING = 1e-9


class RequestProxy:
    """Everything that requests share."""

    def __init__(
        self,
        config: WorkerConfig,
        *,
        pool: Pool,
        ledger: RequestCounts,
        sessions: Sessions,
        line: WorkerQueue,
        standing: HealthState,
        gate: TicketGate | None,
        clock: TicketClock,
        worker_id: int,
    ) -> None:
        self.pool = pool
        self.ledger = ledger
        self.sessions = sessions
        self.standing = standing
        self.gate = gate
        """None: unsecured, for development."""
        self._clock = clock
        self.line = line
        self.active: set[Exchange] = set()
        self.worker_id = b"%d" % worker_id
        self.signature = b"x-stoker-worker: %d\r\n" % worker_id
        self.routes = {
            handler.route.encode(): PreparedRoute(handler, pool.authority) for handler in config.handlers
        }
        self._tolerance = config.cost_tolerance
        self._parallel = any(handler.allow_parallel_requests for handler in config.handlers)

    def handle(self, route: PreparedRoute, request: Request, client: ClientConnection) -> None:
        """Take the request, or refuse it.

        Raises:
            Problem: the refusal.
        """
        asked = request_envelope.read(request)
        if asked.session_id is not None:
            session = self.sessions.join(asked.session_id, asked.auth.ticket)
            _, payload = route.prepare(asked, 0.0)
            work = Work(session.work.request_idx, 0.0)
            exchange = self._exchange(route, request, client, asked, work, session, payload)
            session.running.add(exchange)
        else:
            ticket, work = self.admission(asked)
            try:
                work.workload, payload = route.prepare(asked, work.workload)
                self._check_cost(ticket, work)
                self._check_room(route)
            except Problem:
                self.ledger.reject(work)
                raise
            self.take(ticket, work)
            exchange = self._exchange(route, request, client, asked, work, None, payload)
        self.active.add(exchange)
        client.listener = exchange
        if route.parallel:
            exchange.turn()
        else:
            self.line.join(exchange)

    def admission(self, asked: Asked) -> tuple[Ticket | None, Work]:
        """The ticket, and the work that it allows.

        Raises:
            Problem: 401 without a valid ticket.
        """
        auth = asked.auth
        if self.gate is None:
            return None, Work(auth.request_idx, auth.cost if auth.cost > 0 else DEFAULT_WORKLOAD)
        try:
            ticket = self.gate.check(auth.ticket, self._clock.now())
        except Problem:
            self.ledger.refused += 1
            raise
        return ticket, Work(ticket.r, ticket.c)

    def give_back(self, request: Request) -> None:
        """A call to a path or method that this worker does not serve: the engine must not count its ticket as work."""
        try:
            asked = request_envelope.read(request)
            if asked.session_id is not None:
                return
            _, work = self.admission(asked)
        except Problem:
            return
        self.ledger.reject(work)

    def closing_call(
        self, opening: Opening, session_id: str, ticket: Ticket | None, work: Work
    ) -> ClosingCall | None:
        """The request that the session's end will send, prepared and weighed like every other; None: none is wanted.

        Raises:
            Problem: 422, the route is not declared or the payload is not what it takes; 403, the session's ticket does
                not allow its workload.
        """
        if opening.on_close_route is None:
            return None
        route = self.routes.get(opening.on_close_route.encode())
        if route is None or route.awaits_hook:
            said = "on_close_route: one of this worker's routes that the model server answers itself, like "
            known = ", ".join(path.decode() for path, each in self.routes.items() if not each.awaits_hook)
            raise Problem(422, "session_invalid", said + (known or "none, which this worker has"))
        payload = opening.on_close_payload
        body = {} if payload is None else dict(payload) if isinstance(payload, dict) else {"payload": payload}
        body.setdefault("session_id", session_id)
        asked = Asked(AuthData(), None, msgspec.json.encode(body), JSON, is_json=True)
        call = Work(work.request_idx, 0.0)
        call.workload, _ = route.prepare(asked, work.workload)
        self._check_cost(ticket, call)
        return ClosingCall(
            opening.on_close_route,
            bytes(asked.body),
            asked.content_type.decode(),
            work,
            parallel=route.parallel,
        )

    def take(self, ticket: Ticket | None, work: Work, *, held: bool = True) -> None:
        """Use the ticket up and enter the work into the books."""
        if ticket is not None and self.gate is not None:
            self.gate.use(ticket, self._clock.now())
        if held:
            self.ledger.enter(work)

    def check_open(self) -> None:
        """Refuse new work while the model loads and when the worker drains.

        Raises:
            Problem: 503.
        """
        problem = self.standing.refusal
        if problem is not None:
            raise problem

    def leave(self, exchange: Exchange, outcome: Outcome) -> None:
        """An exchange has ended."""
        self.active.discard(exchange)
        if not exchange.route.parallel:
            self.line.leave(exchange)
        if exchange.session is not None:
            exchange.session.running.discard(exchange)
        else:
            self.ledger.leave(exchange.work, outcome)
        if not self.active:
            self.standing.quiet()

    def turn(self) -> QueueSlot | None:
        """What it works on; None: on several at once, or sessions keep what comes next from being foreseen."""
        if self._parallel or len(self.sessions):
            return None
        served = self.line.served
        if served is None:
            return QueueSlot()
        assert isinstance(served, Exchange | ClosingCall), "nothing else joins the line"
        work = served.work
        return QueueSlot(work.workload, max(0.0, time.time() - work.started_at) if work.started_at else 0.0)

    def model_failed(self, fault: OriginFault) -> None:
        """The model server did not answer a request."""
        self.standing.model_failed(fault)

    def _exchange(
        self,
        route: PreparedRoute,
        request: Request,
        client: ClientConnection,
        asked: Asked,
        work: Work,
        session: Session | None,
        payload: dict[str, object] | None,
    ) -> Exchange:
        if route.awaits_hook:
            return HookExchange(self, client, request, route, asked, work, session, payload)
        return Exchange(self, client, request, route, asked, work, session)

    def _check_cost(self, ticket: Ticket | None, work: Work) -> None:
        if ticket is None or work.workload <= ticket.c * self._tolerance + _ROUNDING:
            return
        raise Problem(
            403,
            "ticket_cost_exceeded",
            f"this request's workload is {work.workload:g}, its ticket allows {ticket.c:g};"
            " route again with a cost that covers it",
        )

    def _check_room(self, route: PreparedRoute) -> None:
        self.check_open()
        most = route.max_queue_time
        if most is None:
            return
        wait = expected_wait_seconds(self.ledger.queue_load, self.standing.perf)
        if wait > most:
            raise Problem(
                429,
                "queue_full",
                f"a request would wait {wait:.1f} s here and {most:g} s is the most; route again",
                headers={"Retry-After": str(math.ceil(min(wait - most, 60)) or 1)},
            )
