"""Sessions: a client reserves one worker for a sequence of requests."""

import asyncio
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import structlog

from stoker_pyworker.proxy.worker_queue import WorkerQueue
from stoker_pyworker.reporting.request_counts import Outcome, RequestCounts, Work
from stoker_wire.errors.problem import Problem
from stoker_wire.http1.client import fetch
from stoker_wire.http1.upstream_connection import UpstreamError
from stoker_wire.http1.upstream_pool import UpstreamPool

log = structlog.get_logger(component="sessions")

_ID_BYTES = 16
_SWEEP_SECONDS = 1.0
_ON_CLOSE_SECONDS = 10.0
_ON_CLOSE_CALLS_MAX = 16
"""Concurrent on-close calls to the model server."""
_LIFETIME_SECONDS_MAX = 7 * 86400.0


class SessionOptions(msgspec.Struct):
    """Payload of `/session/create`."""

    lifetime: float = 60.0
    """Seconds. Every request of the session extends it by the same time."""
    on_close_route: str | None = None
    on_close_payload: Any = None


class SessionReference(msgspec.Struct):
    """Body of `/session/get`, `/session/end` and `/session/health`."""

    session_id: str | None = None
    session_auth: Any = None


_ENDED = Problem(410, "session_ended", "the session ended while this request ran")


class Cancellable(Protocol):
    """Work that ends with its session."""

    def cancel(self, outcome: Outcome, problem: Problem) -> None:
        """End the work and answer its client with the problem."""


class OnCloseCall:
    """The request to the model at the end of a session: to a configured route, within the session's cost."""

    __slots__ = ("body", "content_type", "parallel", "path", "started", "work")

    def __init__(self, path: str, body: bytes, content_type: str, work: Work, *, parallel: bool) -> None:
        self.path = path
        self.body = body
        self.content_type = content_type
        self.work = work
        """The session's work, which ends with this call."""
        self.parallel = parallel
        self.started = asyncio.Event()

    def start(self) -> None:
        """The queue has reached this call."""
        self.started.set()


def new_session_id() -> str:
    """A random session id that cannot be guessed."""
    return secrets.token_urlsafe(_ID_BYTES)


class Session:
    """One open session."""

    __slots__ = (
        "auth_data",
        "created_at",
        "expires_at",
        "id",
        "on_close",
        "options",
        "running",
        "ticket",
        "work",
    )

    def __init__(
        self,
        session_id: str,
        options: SessionOptions,
        auth_data: dict[str, Any],
        work: Work,
        on_close: OnCloseCall | None,
    ) -> None:
        self.id = session_id
        self.options = options
        self.on_close = on_close
        self.auth_data = auth_data
        self.ticket = str(auth_data.get("ticket", ""))
        self.work = work
        self.created_at = time.time()
        self.expires_at = self.created_at + options.lifetime
        self.running: set[Cancellable] = set()

    def call_ended(self, call: Cancellable, outcome: Outcome) -> None:
        """A request of the session has ended."""
        self.running.discard(call)

    def record(self) -> dict[str, Any]:
        """The response of `/session/get`."""
        return {
            "session_id": self.id,
            "auth_data": self.auth_data,
            "lifetime": self.options.lifetime,
            "expiration": self.expires_at,
            "created_at": self.created_at,
            "on_close_route": self.options.on_close_route,
            "on_close_payload": self.options.on_close_payload,
        }


class Sessions:
    """The open sessions: at most `sessions_max` (0: no limit), each with an expiry."""

    def __init__(
        self,
        pool: UpstreamPool,
        counts: RequestCounts,
        queue: WorkerQueue,
        sessions_max: int,
        *,
        on_empty: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_empty` is called when the last session ends."""
        # Slow on-close calls must not use up the connections of requests, nor the reverse.
        self._pool = pool.separate_pool(_ON_CLOSE_CALLS_MAX)
        self._counts = counts
        self._queue = queue
        self._sessions_max = sessions_max
        self._on_empty = on_empty
        self._open: dict[str, Session] = {}
        self._on_close_tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._open)

    def parse_options(self, payload: Any) -> SessionOptions:
        """The options of a new session.

        Raises:
            Problem: 422 for invalid options; 429 when too many sessions are open.
        """
        try:
            options = msgspec.convert({} if payload is None else payload, SessionOptions)
        except msgspec.ValidationError as fault:
            raise Problem(422, "session_invalid", f"the session's payload: {fault}") from None
        if not 0 < options.lifetime <= _LIFETIME_SECONDS_MAX:
            raise Problem(
                422,
                "session_invalid",
                f"lifetime: expected seconds in (0, {_LIFETIME_SECONDS_MAX:.0f}], received {options.lifetime}",
            )
        if self._sessions_max and len(self._open) >= self._sessions_max:
            message = f"this worker has {len(self._open)} sessions, its limit; route again"
            raise Problem(429, "too_many_sessions", message, headers={"Retry-After": "1"})
        return options

    def open(self, session: Session) -> None:
        """Open a session. Its cost counts as load until it ends."""
        self._open[session.id] = session
        self._counts.accept(session.work)
        session.work.started_at = session.work.entered_at

    def use(self, session_id: str, ticket: str) -> Session:
        """The session for one more request, its expiry extended by its lifetime.

        Raises:
            Problem: 410 for an unknown or ended session; 401 for a ticket other than the one that opened it.
        """
        session = self._open.get(session_id)
        if session is None or session.expires_at <= time.time():
            raise Problem(410, "session_gone", "this session does not exist here, or has ended; open another")
        if not hmac.compare_digest(session.ticket.encode(), ticket.encode()):
            raise Problem(
                401, "session_foreign", "auth_data must be the one that the session was opened with"
            )
        latest = time.time() + _LIFETIME_SECONDS_MAX
        session.expires_at = min(session.expires_at + session.options.lifetime, latest)
        return session

    def find(self, reference: SessionReference) -> Session:
        """The session of a management call.

        Raises:
            Problem: 422, 400 or 401, as in the official worker.
        """
        if not reference.session_id:
            raise Problem(422, "session_id_missing", "send the session_id that /session/create answered")
        session = self._open.get(reference.session_id)
        if session is None or session.expires_at <= time.time():
            raise Problem(400, "session_unknown", "this session does not exist here, or has ended")
        given = msgspec.json.encode(reference.session_auth, order="sorted")
        known = msgspec.json.encode(session.auth_data, order="sorted")
        if not hmac.compare_digest(given, known):
            raise Problem(401, "session_auth_wrong", "session_auth must be the auth_data of /session/create")
        return session

    def end(self, session: Session) -> None:
        """End a session: cancel its running requests and send its on-close call."""
        if self._open.pop(session.id, None) is None:
            return
        for exchange in list(session.running):
            exchange.cancel(Outcome.CANCELLED, _ENDED)
        if session.on_close is None:
            self._counts.finish(session.work, Outcome.SUCCESS)
        else:
            task = asyncio.get_running_loop().create_task(self._send_on_close(session.on_close))
            self._on_close_tasks.add(task)
            task.add_done_callback(self._on_close_tasks.discard)
        if not self._open:
            self._on_empty()

    def end_all(self) -> None:
        """End every session."""
        for session in list(self._open.values()):
            self.end(session)

    async def wait_for_on_close(self) -> None:
        """Wait for the on-close calls; cancel those that take too long."""
        if not self._on_close_tasks:
            return
        _, late = await asyncio.wait(self._on_close_tasks, timeout=_ON_CLOSE_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def sweep(self) -> None:
        """End expired sessions. Runs until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = time.time()
            for session in [each for each in self._open.values() if each.expires_at <= now]:
                self.end(session)

    async def _send_on_close(self, call: OnCloseCall) -> None:
        """Send the on-close call after its wait in the queue. The session's work ends with it."""
        try:
            if not call.parallel:
                self._queue.join(call)
                await call.started.wait()
            response = await fetch(
                self._pool,
                "POST",
                call.path,
                call.body,
                content_type=call.content_type,
                seconds_max=_ON_CLOSE_SECONDS,
            )
            if response.status >= 400:
                log.warning("on_close_refused", route=call.path, status=response.status)
        except (UpstreamError, TimeoutError) as fault:
            log.warning("on_close_failed", route=call.path, error=str(fault) or type(fault).__name__)
        finally:
            if not call.parallel:
                self._queue.leave(call)
            self._counts.finish(call.work, Outcome.SUCCESS)
