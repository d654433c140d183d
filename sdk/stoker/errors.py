"""Everything that can go wrong, as the caller sees it.

    StokerError
     ├─ Invalid                what you gave cannot be sent
     ├─ Unauthorised           the key does not open this
     ├─ NotFound               no such thing on this engine
     │   └─ EndpointNotFound
     ├─ Refused                the engine understood and said no
     ├─ EngineUnavailable      the engine did not answer for longer than tolerated
     ├─ TemporalUnavailable    Temporal, or the worker behind it, did not answer (`stoker.control`)
     ├─ RequestTimedOut        your timeout passed; says what the request was waiting for
     ├─ WorkerFailed           workers refused or dropped the request more often than tolerated
     ├─ ModelError             a worker answered with an error of its own; carries status and body
     ├─ SessionClosed          the session has ended or expired
     └─ MalformedAnswer        something answered that does not speak the protocol

Every message says what was expected, what came, and what to do.
"""

from __future__ import annotations

from typing import Any

from stoker_wire.picklable import PicklableError


class StokerError(PicklableError, Exception):
    """The root of what this package raises on purpose."""


class Invalid(StokerError, ValueError):
    """What the caller gave cannot be sent; nothing was."""


class Unauthorised(StokerError):
    """The key is missing, wrong, or belongs to another account."""


class NotFound(StokerError):
    """The engine knows no such thing."""


class EndpointNotFound(NotFound):
    """The engine knows no endpoint of this name or id."""


class Refused(StokerError):
    """The engine understood the request and refused it; `code` is its problem code."""

    def __init__(self, message: str, *, status: int, code: str = "") -> None:
        self.status = status
        self.code = code
        super().__init__(message)


class EngineUnavailable(StokerError):
    """The engine refused connections or answered with server errors for longer than tolerated."""


class TemporalUnavailable(StokerError):
    """Temporal did not answer, or no Temporal worker is there to answer for the endpoint."""


class RequestTimedOut(StokerError, TimeoutError):
    """The caller's timeout passed. `reason` says in one word what the request was waiting for.

    One of the engine's reasons (`busy`, `booting`, `recruiting`, `no_capacity`, `stopped`, `worker_failed`, …),
    `engine` (the engine did not answer), `worker` (a worker was at it) or `new` (nothing had happened yet).
    """

    def __init__(self, message: str, *, reason: str, waited_s: float) -> None:
        self.reason = reason
        self.waited_s = waited_s
        super().__init__(message)


class WorkerFailed(StokerError):
    """Workers refused or dropped the request more often than tolerated; `worker_url` is the last one.

    `status` is its HTTP status, None when the connection could not be made or broke.
    """

    def __init__(
        self, message: str, *, worker_url: str = "", attempts: int = 0, status: int | None = None
    ) -> None:
        self.worker_url = worker_url
        self.attempts = attempts
        self.status = status
        super().__init__(message)


class ModelError(StokerError):
    """A worker answered with an error that another worker would not mend; `body` is what it said."""

    def __init__(self, message: str, *, status: int, body: Any, worker_url: str = "") -> None:
        self.status = status
        self.body = body
        self.worker_url = worker_url
        super().__init__(message)


class SessionClosed(StokerError):
    """The session has ended, expired, or its worker is gone: its state is lost."""


class MalformedAnswer(StokerError):
    """Something answered that does not speak the protocol."""
