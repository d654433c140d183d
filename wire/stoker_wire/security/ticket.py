"""A ticket: the right to send one request, of at most this cost, to one worker, for a short time, once.

The official signature covers the worker's url only and never expires. A ticket closes that hole for stoker's own
worker: `<base64url JSON>.<base64url HMAC-SHA256>`, keyed by `token.ticket_key` of the worker it is for.
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
"""How long a ticket may lie unused: longer than a slow client's connect and upload, far shorter than a worker's life."""


_SEALS_MAX = 2


class TicketRefused(PicklableError, ValueError):
    """The ticket does not open this worker; the message says why, `code` is the problem code."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Ticket:
    """Short names: a ticket travels with every request."""

    e: str
    """Endpoint name."""
    w: str
    """Launch id of the worker."""
    c: float
    """Cost that the router booked, load."""
    r: int
    """Request index; unique, and so the single-use mark too (with `n`)."""
    n: int
    """Number of the route answer given for this request: a re-route is a new ticket."""
    x: float
    """Unix time after which it is worthless."""

    def check(self) -> None:
        """Raises ValueError for a field of another type, and for a number that is not finite or below 0."""
        texts = [name for name in ("e", "w", "c", "x") if isinstance(getattr(self, name), str)]
        whole = type(self.r) is int and type(self.n) is int
        cost, expiry = finite(self.c), finite(self.x)
        if texts != ["e", "w"] or not whole or cost is None or cost < 0 or expiry is None or expiry < 0:
            raise ValueError("not the fields of a ticket")


def sign_ticket(ticket: Ticket, *keys: bytes) -> str:
    """The ticket as text. More than one key while keys are rotated, and it is not known which of them the worker has."""
    # Spelled out: asdict() alone costs more than the HMAC, and this runs for every route answer.
    said = {"e": ticket.e, "w": ticket.w, "c": ticket.c, "r": ticket.r, "n": ticket.n, "x": ticket.x}
    body = base64.urlsafe_b64encode(json.dumps(said, separators=(",", ":")).encode()).rstrip(b"=")
    macs = [base64.urlsafe_b64encode(hmac.digest(key, body, hashlib.sha256)).rstrip(b"=") for key in keys]
    return b".".join([body, *macs]).decode()


def verify_ticket(text: str, key: bytes, *, worker: str, now: float) -> Ticket:
    """The ticket in the text, checked for forgery, worker and expiry.

    Single use is the worker's to check: only it knows what it has seen.

    Raises:
        TicketRefused: forged, for another worker, or expired.
    """
    body, dot, mac = text.encode("utf-8", "surrogatepass").partition(b".")
    expected = base64.urlsafe_b64encode(hmac.digest(key, body, hashlib.sha256)).rstrip(b"=")
    if not dot or not any(hmac.compare_digest(one, expected) for one in mac.split(b".")[:_SEALS_MAX]):
        raise TicketRefused(
            "ticket_forged", "the ticket was not made for this worker by its engine; route again"
        )
    try:
        ticket = Ticket(**parse_json(base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4))))
        ticket.check()
    except (ValueError, TypeError) as fault:
        raise TicketRefused("ticket_unreadable", "the ticket is of another version; route again") from fault
    if ticket.w != worker:
        raise TicketRefused("ticket_for_another_worker", "the ticket is for another worker; route again")
    if now > ticket.x:
        late = now - ticket.x
        raise TicketRefused("ticket_expired", f"the ticket expired {late:.1f} s ago; route again")
    return ticket
