"""Tickets: single-use, short-lived permits for one request of limited cost to one worker.

The official signature covers only the worker's url and never expires, so stoker's worker also checks a ticket. Its form
is `<base64url JSON>.<base64url HMAC-SHA256>`, keyed by the worker's `token.ticket_key`.
"""

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass

from stoker_wire.parsing.numbers import finite
from stoker_wire.parsing.strict_json import parse_json
from stoker_wire.picklable import PicklableError

TICKET_SECONDS = 60.0
"""Validity of a ticket: longer than a slow client's connect and upload, far shorter than a worker's lifetime."""

_MACS_MAX = 2
_encode = json.JSONEncoder(separators=(",", ":")).encode
"""`json.dumps` with separators makes an encoder for every call."""

PADDING = b"=="
"""Base64 without its padding decodes with this much; the decoder ignores what is too much."""


class TicketRefused(PicklableError, ValueError):
    """The ticket is not valid for this worker. The message says why; `code` is the problem code."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Ticket:
    """The contents of a ticket. Names are short because every request carries one."""

    e: str
    """Endpoint name."""
    w: str
    """Launch id of the worker."""
    c: float
    """Cost that the router booked, load."""
    r: int
    """Request index; unique. With `n` it identifies the ticket for single use."""
    n: int
    """Number of the route answer for this request: a re-route gets a new ticket."""
    x: float
    """Unix time of expiry."""
    b: tuple[str, ...] = ()
    """Starts of the fingerprints of requests that broke workers, which the worker refuses. Only in tickets of clients
    that send no fingerprint: the engine refuses the others itself."""

    def check(self) -> None:
        """Raise ValueError for a field of the wrong type, or a number that is negative or not finite."""
        texts = isinstance(self.e, str) and isinstance(self.w, str)
        whole = type(self.r) is int and type(self.n) is int
        listed = isinstance(self.b, tuple) and all(isinstance(each, str) for each in self.b)
        if not (texts and whole and listed and _is_amount(self.c) and _is_amount(self.x)):
            raise ValueError("not the fields of a ticket")


def _is_amount(value: object) -> bool:
    """Whether the value is a finite JSON number that is not negative."""
    number = None if isinstance(value, str) else finite(value)
    return number is not None and number >= 0


def sign_ticket(ticket: Ticket, *keys: bytes) -> str:
    """The signed ticket as text. Several keys are given during key rotation, when the worker's key is unknown."""
    # Not asdict(): it takes longer than the HMAC, and this runs for every route answer.
    fields: dict[str, object] = {
        "e": ticket.e,
        "w": ticket.w,
        "c": ticket.c,
        "r": ticket.r,
        "n": ticket.n,
        "x": ticket.x,
    }
    if ticket.b:
        fields["b"] = ticket.b
    body = base64.urlsafe_b64encode(_encode(fields).encode()).rstrip(b"=")
    macs = [base64.urlsafe_b64encode(hmac.digest(key, body, hashlib.sha256)).rstrip(b"=") for key in keys]
    return b".".join([body, *macs]).decode()


def verify_ticket(text: str, key: bytes, *, worker: str, now: float) -> Ticket:
    """The ticket in the text, after checks of its signature, worker and expiry.

    The worker itself checks single use, because only it knows the tickets that it has received.

    Raises:
        TicketRefused: forged, for another worker, or expired.
    """
    body, dot, mac = text.encode("utf-8", "surrogatepass").partition(b".")
    expected = base64.urlsafe_b64encode(hmac.digest(key, body, hashlib.sha256)).rstrip(b"=")
    if not dot or not any(hmac.compare_digest(one, expected) for one in mac.split(b".")[:_MACS_MAX]):
        raise TicketRefused("ticket_forged", "the ticket is not signed with this worker's key; route again")
    try:
        fields = parse_json(base64.urlsafe_b64decode(body + PADDING))
        if isinstance(fields.get("b"), list):
            fields["b"] = tuple(fields["b"])
        ticket = Ticket(**fields)
        ticket.check()
    except (ValueError, TypeError, AttributeError) as fault:
        raise TicketRefused("ticket_unreadable", "the ticket is of another version; route again") from fault
    if ticket.w != worker:
        raise TicketRefused("ticket_for_another_worker", "the ticket is for another worker; route again")
    if now > ticket.x:
        raise TicketRefused("ticket_expired", f"the ticket expired {now - ticket.x:.1f} s ago; route again")
    return ticket
