"""The errors of this package.

    StokerError
     ├─ Invalid                an argument cannot be sent
     ├─ Unauthorised           the key is missing, wrong, or of another account
     ├─ NotFound               the engine has no such object
     │   └─ EndpointNotFound
     ├─ Refused                the engine understood and refused
     ├─ CertificateNotTrusted  the TLS certificate of an engine or a worker is not trusted
     ├─ EngineUnavailable      an outage of the engine longer than tolerated
     ├─ TemporalUnavailable    Temporal, or a Temporal worker, did not answer (`stoker.control`)
     ├─ RequestTimedOut        the timeout passed; names what the request was waiting for
     ├─ WorkerFailed           workers refused or dropped the request more often than tolerated
     ├─ ModelError             a worker answered with an error; carries status and body
     ├─ SessionClosed          the session has ended or expired
     └─ MalformedAnswer        an answer that does not follow the protocol

Every message gives what was expected, what was received, and what to do.
"""

from __future__ import annotations

from typing import Any

from stoker_wire.errors.picklable import PicklableError


class StokerError(PicklableError, Exception):
    """The base class of this package's errors."""


class Invalid(StokerError, ValueError):
    """An argument cannot be sent; nothing was sent."""


class Unauthorised(StokerError):
    """The key is missing, wrong, or belongs to another account."""


class NotFound(StokerError):
    """The engine has no such object."""


class EndpointNotFound(NotFound):
    """The engine has no endpoint of this name or id."""


class Refused(StokerError):
    """The engine understood the request and refused it; `code` is its problem code."""

    def __init__(self, message: str, *, status: int, code: str = "") -> None:
        self.status = status
        self.code = code
        super().__init__(message)


class CertificateNotTrusted(StokerError):
    """The TLS certificate of an engine or a worker has expired, is for another host, or has an unknown issuer.

    Nothing was sent, and a worker is not reported as failed.
    """


class EngineUnavailable(StokerError):
    """The engine refused connections or answered with server errors for longer than tolerated."""


class TemporalUnavailable(StokerError):
    """Temporal did not answer, or no Temporal worker runs that could answer for the endpoint."""


class RequestTimedOut(StokerError, TimeoutError):
    """The caller's timeout passed. `reason` is a code for what the request was waiting for.

    One of the engine's reasons (`busy`, `booting`, `recruiting`, `no_capacity`, `stopped`, `worker_failed`, …),
    `engine` (the engine did not answer), `worker` (a worker had the request), `new` (it had not been sent) or
    `deleting` (`stoker.control`: a deletion had not ended).
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
    """A worker answered with an error that every worker would give; `body` is its answer."""

    def __init__(self, message: str, *, status: int, body: Any, worker_url: str = "") -> None:
        self.status = status
        self.body = body
        self.worker_url = worker_url
        super().__init__(message)


class SessionClosed(StokerError):
    """The session has ended, has expired, or lost its worker; its state is lost."""


class MalformedAnswer(StokerError):
    """The answer does not follow the protocol."""
