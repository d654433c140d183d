"""Classifies failed attempts: which may be retried elsewhere, and the error that the caller gets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import httpx

from stoker.engine import problem_of
from stoker.errors import (
    CertificateNotTrusted,
    ModelError,
    SessionClosed,
    StokerError,
    Unauthorised,
    WorkerFailed,
)
from stoker.settings import CA_VARIABLE
from stoker_wire.parsing.strict_json import NotJson, parse_answer
from stoker_wire.security.certificate_faults import certificate_fault

_TICKET_CODES = frozenset({"auth_missing", "session_foreign"})
"""Codes of a worker's 401 that are about the ticket, besides `ticket_…`."""


class ErrorKind(Enum):
    """Whether and how to retry."""

    REFUSED = "refused"
    """No work was done; another worker may serve the request."""
    FAILED = "failed"
    """Work may have been done; a few other workers may try."""
    TICKET = "ticket"
    """The worker refused the ticket. One retry: the ticket may have expired on the way."""
    FINAL = "final"
    """Every worker would give the same answer."""


@dataclass(frozen=True, slots=True)
class AttemptError:
    """Why an attempt did not succeed; `error` is raised when there is no further attempt."""

    kind: ErrorKind
    error: StokerError


def classify_transport_error(fault: Exception, worker_url: str, attempts: int) -> AttemptError:
    """The class of a connection that could not be made, or broke."""
    if (reason := certificate_fault(fault)) is not None:
        message = (
            f"the certificate of the worker {worker_url} is not trusted: {reason}; give the worker a certificate of the "
            f"engine's authority, or name its issuer's certificate in {CA_VARIABLE}"
        )
        return AttemptError(ErrorKind.FINAL, CertificateNotTrusted(message))
    cause = str(fault) or type(fault).__name__
    if isinstance(fault, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        sentence = f"the worker {worker_url} could not be reached ({cause})"
        return AttemptError(ErrorKind.REFUSED, _worker_failed(sentence, worker_url, attempts))
    sentence = f"the worker {worker_url} dropped the request ({cause})"
    return AttemptError(ErrorKind.FAILED, _worker_failed(sentence, worker_url, attempts))


def classify_answer(
    response: httpx.Response, worker_url: str, attempts: int, *, in_session: bool
) -> AttemptError:
    """The class of an error answer whose body has been read."""
    status = response.status_code
    code, message = problem_of(response)
    answered = f"{status}{' ' + code if code and code != message else ''}{': ' + message if message else ''}"
    sentence = f"the worker {worker_url} answered {answered}"
    if status in {429, 503}:
        return AttemptError(ErrorKind.REFUSED, _worker_failed(sentence, worker_url, attempts, status))
    if status == 410 and in_session:
        closed = SessionClosed(f"the session has ended or expired ({message or status}); open a new one")
        return AttemptError(ErrorKind.FINAL, closed)
    if status == 401 and _is_about_the_ticket(response, code):
        refused = Unauthorised(
            f"{sentence}; it did not accept the engine's ticket: is its clock right, and does it belong to this engine?"
        )
        return AttemptError(ErrorKind.TICKET, refused)
    error = ModelError(
        _model_error_text(status, answered), status=status, body=_body(response), worker_url=worker_url
    )
    return AttemptError(ErrorKind.FAILED if status == 408 or status >= 500 else ErrorKind.FINAL, error)


def _is_about_the_ticket(response: httpx.Response, code: str) -> bool:
    """Whether a 401 comes from the worker.

    A model with an API key of its own answers 401 too, and a new ticket does not help. stoker's worker sends a code. The official worker and plain aiohttp send no code.
    """
    if code:
        return code.startswith("ticket_") or code in _TICKET_CODES
    return response.content.strip() in {b"", b"401: Unauthorized"}


def _worker_failed(sentence: str, worker_url: str, attempts: int, status: int | None = None) -> WorkerFailed:
    return WorkerFailed(
        f"{sentence}; {attempts} worker{'s' if attempts > 1 else ''} tried. See `stoker workers` and `stoker logs`",
        worker_url=worker_url,
        attempts=attempts,
        status=status,
    )


def _model_error_text(status: int, answered: str) -> str:
    if status == 404:
        return f"the worker answered {answered}; does its worker file have a handler for this route?"
    if status == 401:
        return (
            f"the model behind the worker answered {answered}; it expects an API key of its own: "
            "does the worker file set it? `.body` holds the answer"
        )
    if 400 <= status < 500:
        return f"the worker refused the payload: {answered}; `.body` holds the answer"
    return f"the worker answered {answered}; `.body` holds the answer, `stoker logs` may show the cause"


def _body(response: httpx.Response) -> Any:
    try:
        return parse_answer(response.content)
    except NotJson:
        return response.text
