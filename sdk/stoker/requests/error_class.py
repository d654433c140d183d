"""What a worker's answer, or its failure to answer, means for the request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import httpx

from stoker.engine import problem_of
from stoker.errors import ModelError, SessionClosed, StokerError, Unauthorised, WorkerFailed
from stoker_wire.parsing.strict_json import NotJson, parse_answer

_TICKET_CODES = frozenset({"auth_missing", "session_foreign"})
"""Codes of a worker's 401 that are about the ticket, besides `ticket_…`."""


class FaultKind(Enum):
    """What to do next."""

    REFUSED = "refused"
    """No work was done: another worker may take it."""
    FAILED = "failed"
    """Work may have been done: another worker may take it, but not for ever."""
    TICKET = "ticket"
    """The worker does not accept the ticket: once, because it may have lain too long; twice is no accident."""
    FINAL = "final"
    """Another worker would say the same."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt did not succeed; `error` is what the caller gets when there is no further attempt."""

    kind: FaultKind
    sentence: str
    error: StokerError


def transport_fault(fault: Exception, worker_url: str, attempts: int) -> Fault:
    """The fault of a connection that could not be made, or broke."""
    said = str(fault) or type(fault).__name__
    if isinstance(fault, httpx.ConnectError | httpx.ConnectTimeout):
        sentence = f"the worker {worker_url} could not be reached ({said})"
        return Fault(FaultKind.REFUSED, sentence, _failed(sentence, worker_url, attempts))
    sentence = f"the worker {worker_url} dropped the request ({said})"
    return Fault(FaultKind.FAILED, sentence, _failed(sentence, worker_url, attempts))


def answer_fault(
    response: httpx.Response, worker_url: str, attempts: int, *, in_session: bool
) -> Fault | None:
    """The fault in an answer that has been read, or None if the request was served."""
    status = response.status_code
    if response.is_success:
        return None
    code, message = problem_of(response)
    said = f"{status}{' ' + code if code and code != message else ''}{': ' + message if message else ''}"
    sentence = f"the worker {worker_url} answered {said}"
    if status in {429, 503}:
        return Fault(FaultKind.REFUSED, sentence, _failed(sentence, worker_url, attempts, status))
    if status == 410 and in_session:
        closed = SessionClosed(f"the session has ended or expired ({message or status}); open a new one")
        return Fault(FaultKind.FINAL, sentence, closed)
    if status == 401 and _of_the_ticket(response, code):
        refused = Unauthorised(
            f"{sentence}; it did not accept the engine's ticket: is its clock right, and does it belong to this engine?"
        )
        return Fault(FaultKind.TICKET, sentence, refused)
    error = ModelError(
        _model_sentence(status, said), status=status, body=_body(response), worker_url=worker_url
    )
    return Fault(FaultKind.FAILED if status == 408 or status >= 500 else FaultKind.FINAL, sentence, error)


def _of_the_ticket(response: httpx.Response, code: str) -> bool:
    """Whether a 401 is the worker's. A model with a key of its own says 401 too, and no other ticket changes its mind.

    stoker's worker names a code; the official one, and a bare aiohttp, say nothing.
    """
    if code:
        return code.startswith("ticket_") or code in _TICKET_CODES
    return response.content.strip() in {b"", b"401: Unauthorized"}


def _failed(sentence: str, worker_url: str, attempts: int, status: int | None = None) -> WorkerFailed:
    return WorkerFailed(
        f"{sentence}; {attempts} worker{'s' if attempts > 1 else ''} tried. See `stoker workers` and `stoker logs`",
        worker_url=worker_url,
        attempts=attempts,
        status=status,
    )


def _model_sentence(status: int, said: str) -> str:
    if status == 404:
        return f"the worker answered {said}; does its worker file have a handler for this route?"
    if status == 401:
        return (
            f"the model behind the worker answered {said}; it wants a key of its own: does the worker file give it one? "
            "`.body` holds what it said"
        )
    if 400 <= status < 500:
        return f"the worker refused the payload: {said}; `.body` holds what it said"
    return f"the worker answered {said}; `.body` holds what it said, `stoker logs` may say why"


def _body(response: httpx.Response) -> Any:
    try:
        return parse_answer(response.content)
    except NotJson:
        return response.text
