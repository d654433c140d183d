"""Sessions: a client keeps one worker for itself for a while."""

import asyncio
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import structlog

from stoker_pyworker.http.client import ask
from stoker_pyworker.http.outgoing import OriginFault, Pool
from stoker_pyworker.proxy.worker_queue import WorkerQueue
from stoker_pyworker.reporting.request_counts import Outcome, RequestCounts, Work
from stoker_wire.problem import Problem

log = structlog.get_logger(room="sessions")

_ID_BYTES = 16
_SWEEP_SECONDS = 1.0
_CALLBACK_SECONDS = 10.0
_CALLBACKS_MAX = 16
"""Calls at once to a model server that is told of ended sessions; further ones wait."""
_LIFETIME_SECONDS_MAX = 7 * 86400.0


class Opening(msgspec.Struct):
    """Payload of `/session/create`."""

    lifetime: float = 60.0
    """Seconds; every request of the session adds as much again."""
    on_close_route: str | None = None
    on_close_payload: Any = None


class Naming(msgspec.Struct):
    """Body of `/session/get`, `/session/end` and `/session/health`."""

    session_id: str | None = None
    session_auth: Any = None


_ENDED = Problem(410, "session_ended", "the session ended while this request ran")


class Running(Protocol):
    """What runs inside a session and ends with it."""

    def cut(self, outcome: Outcome, problem: Problem) -> None:
        """End it now, and say so to the client."""


class ClosingCall:
    """The request that a session's end sends to the model: to a declared route, within the session's cost."""

    __slots__ = ("body", "content_type", "my_turn", "parallel", "path", "work")

    def __init__(self, path: str, body: bytes, content_type: str, work: Work, *, parallel: bool) -> None:
        self.path = path
        self.body = body
        self.content_type = content_type
        self.work = work
        """The session's: it occupies the worker until this call has ended."""
        self.parallel = parallel
        self.my_turn = asyncio.Event()

    def turn(self) -> None:
        """The line has come to this call."""
        self.my_turn.set()


def new_session_id() -> str:
    """The name of a session, which cannot be guessed."""
    return secrets.token_urlsafe(_ID_BYTES)


class Session:
    """One open session."""

    __slots__ = (
        "auth_data",
        "closing",
        "created_at",
        "expires_at",
        "id",
        "opening",
        "running",
        "ticket",
        "work",
    )

    def __init__(
        self,
        session_id: str,
        opening: Opening,
        auth_data: dict[str, Any],
        work: Work,
        closing: ClosingCall | None,
    ) -> None:
        self.id = session_id
        self.opening = opening
        self.closing = closing
        self.auth_data = auth_data
        self.ticket = str(auth_data.get("ticket", ""))
        self.work = work
        self.created_at = time.time()
        self.expires_at = self.created_at + opening.lifetime
        self.running: set[Running] = set()

    def record(self) -> dict[str, Any]:
        """What `/session/get` answers."""
        return {
            "session_id": self.id,
            "auth_data": self.auth_data,
            "lifetime": self.opening.lifetime,
            "expiration": self.expires_at,
            "created_at": self.created_at,
            "on_close_route": self.opening.on_close_route,
            "on_close_payload": self.opening.on_close_payload,
        }


class Sessions:
    """The open sessions: at most `most` (0: no limit), each with an end."""

    def __init__(self, pool: Pool, ledger: RequestCounts, line: WorkerQueue, most: int) -> None:
        # Callbacks that the model server is slow to answer would use up what requests need, and requests what they need.
        self._pool = pool.apart(_CALLBACKS_MAX)
        self._ledger = ledger
        self._line = line
        self._most = most
        self._open: dict[str, Session] = {}
        self._callbacks: set[asyncio.Task[None]] = set()
        self.emptied: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._open)

    def check_opening(self, payload: Any) -> Opening:
        """The payload as an opening.

        Raises:
            Problem: 422 for values that make no session; 429 when there are too many already.
        """
        try:
            opening = msgspec.convert({} if payload is None else payload, Opening)
        except msgspec.ValidationError as fault:
            raise Problem(422, "session_invalid", f"the session's payload: {fault}") from None
        if not 0 < opening.lifetime <= _LIFETIME_SECONDS_MAX:
            most = f"{_LIFETIME_SECONDS_MAX:.0f}"
            raise Problem(
                422, "session_invalid", f"lifetime: seconds in (0, {most}], {opening.lifetime} came"
            )
        if self._most and len(self._open) >= self._most:
            message = f"this worker holds {len(self._open)} sessions, its most; route again"
            raise Problem(429, "too_many_sessions", message, headers={"Retry-After": "1"})
        return opening

    def open(self, session: Session) -> None:
        """A new session; it occupies the worker with its cost until it ends."""
        self._open[session.id] = session
        self._ledger.enter(session.work)
        session.work.started_at = session.work.entered_at

    def join(self, session_id: str, ticket: str) -> Session:
        """The session, for one more request of its own; its end moves out by its lifetime.

        Raises:
            Problem: 410 when it is over or was never; 401 when the ticket is not the one it was opened with.
        """
        session = self._open.get(session_id)
        if session is None or session.expires_at <= time.time():
            raise Problem(410, "session_gone", "this session does not exist here, or has ended; open another")
        if not hmac.compare_digest(session.ticket.encode(), ticket.encode()):
            raise Problem(
                401, "session_foreign", "auth_data must be the one that the session was opened with"
            )
        latest = time.time() + _LIFETIME_SECONDS_MAX
        session.expires_at = min(session.expires_at + session.opening.lifetime, latest)
        return session

    def find(self, naming: Naming) -> Session:
        """The session that a management call names.

        Raises:
            Problem: 422, 400 or 401, as the official worker answers.
        """
        if not naming.session_id:
            raise Problem(422, "session_id_missing", "send the session_id that /session/create answered")
        session = self._open.get(naming.session_id)
        if session is None or session.expires_at <= time.time():
            raise Problem(400, "session_unknown", "this session does not exist here, or has ended")
        given = msgspec.json.encode(naming.session_auth, order="sorted")
        known = msgspec.json.encode(session.auth_data, order="sorted")
        if not hmac.compare_digest(given, known):
            raise Problem(401, "session_auth_wrong", "session_auth must be the auth_data of /session/create")
        return session

    def end(self, session: Session) -> None:
        """Close it: what runs in it is cut, the model server is told where the opening said."""
        if self._open.pop(session.id, None) is None:
            return
        for exchange in list(session.running):
            exchange.cut(Outcome.CANCELLED, _ENDED)
        if session.closing is None:
            self._ledger.leave(session.work, Outcome.SUCCESS)
        else:
            task = asyncio.get_running_loop().create_task(self._tell_model(session.closing))
            self._callbacks.add(task)
            task.add_done_callback(self._callbacks.discard)
        if not self._open:
            self.emptied()

    def end_all(self) -> None:
        """Close every session."""
        for session in list(self._open.values()):
            self.end(session)

    async def callbacks_done(self) -> None:
        """Wait for the calls at the ends of sessions; one that is not through in its time is given up."""
        if not self._callbacks:
            return
        _, late = await asyncio.wait(self._callbacks, timeout=_CALLBACK_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def sweep(self) -> None:
        """Close what has expired, for as long as the worker runs."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = time.time()
            for session in [each for each in self._open.values() if each.expires_at <= now]:
                self.end(session)

    async def _tell_model(self, call: ClosingCall) -> None:
        """Send the closing call when the line has come to it. The session's work ends with it."""
        try:
            if not call.parallel:
                self._line.join(call)
                await call.my_turn.wait()
            answer = await ask(
                self._pool,
                "POST",
                call.path,
                call.body,
                content_type=call.content_type,
                seconds_max=_CALLBACK_SECONDS,
            )
            if answer.status >= 400:
                log.warning("on_close_refused", route=call.path, status=answer.status)
        except (OriginFault, TimeoutError) as fault:
            log.warning("on_close_failed", route=call.path, error=str(fault) or type(fault).__name__)
        finally:
            if not call.parallel:
                self._line.leave(call)
            self._ledger.leave(call.work, Outcome.SUCCESS)
