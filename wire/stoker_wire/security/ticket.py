"""Tickets: single-use, short-lived permits for one request of limited cost to one worker.

The official signature covers only the worker's url and never expires, so stoker's worker also checks a ticket. Its form
is `<base64url JSON>.<base64url HMAC-SHA256>`, keyed by the worker's `token.ticket_key`.
"""

import binascii
import functools
import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass

from stoker_wire.errors.picklable import PicklableError
from stoker_wire.parsing.numbers import finite
from stoker_wire.parsing.strict_json import parse_json

TICKET_SECONDS = 60.0
"""Validity of a ticket: longer than a slow client's connect and upload, far shorter than a worker's lifetime."""

_MACS_MAX = 2
_encode = json.JSONEncoder(separators=(",", ":")).encode
"""`json.dumps` with separators makes an encoder for every call."""
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_STANDARD = bytes.maketrans(b"-_", b"+/")
_KEPT = 20_000
_BLOCK_BYTES = 64

_PADDING = b"=="
"""Base64 without its padding decodes with this much; the decoder ignores what is too much."""


class TicketRefused(PicklableError, ValueError):
    """The ticket is not valid for this worker. The message says why; `code` is the problem code."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass(slots=True)
class Ticket:
    """The contents of a ticket. Names are short because every request carries one.

    Not frozen: a frozen record takes three times as long to make, and the worker makes one for every request.
    """

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
    return sign_fields(ticket.e, ticket.w, ticket.c, ticket.r, ticket.n, ticket.x, ticket.b, keys)


def sign_fields(
    e: str, w: str, c: float, r: int, n: int, x: float, b: tuple[str, ...], keys: Iterable[bytes]
) -> str:
    """`sign_ticket` from the fields of the ticket."""
    # Neither a record nor a JSON encoder: each takes longer than the HMAC, and this runs for every route answer.
    refused = f',"b":{_encode(b)}' if b else ""
    body = _base64(f'{_named(e, w)}"c":{c!r},"r":{r},"n":{n},"x":{x!r}{refused}}}'.encode())
    return b".".join([body, *[ticket_mac(key, body) for key in keys]]).decode()


@functools.lru_cache(maxsize=_KEPT)
def _named(endpoint: str, worker: str) -> str:
    """The beginning of the JSON of every ticket of a worker."""
    return _encode({"e": endpoint, "w": worker})[:-1] + ","


def _base64(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False).translate(_URL_SAFE).rstrip(b"=")


def from_base64(text: bytes) -> bytes:
    """The bytes of a ticket's URL-safe base64, which has no padding.

    Raises:
        ValueError: it is not base64.
    """
    return binascii.a2b_base64(text.translate(_STANDARD) + _PADDING)


def ticket_mac(key: bytes, body: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104) as text. Its two hashes begin with the key's blocks, hashed once for each key."""
    first, second = _pads(key)
    inner, outer = first.copy(), second.copy()
    inner.update(body)
    outer.update(inner.digest())
    return _base64(outer.digest())


@functools.lru_cache(maxsize=_KEPT)
def _pads(key: bytes) -> "tuple[hashlib._Hash, hashlib._Hash]":
    block = (key if len(key) <= _BLOCK_BYTES else hashlib.sha256(key).digest()).ljust(_BLOCK_BYTES, b"\0")
    return hashlib.sha256(bytes(each ^ 0x36 for each in block)), hashlib.sha256(
        bytes(each ^ 0x5C for each in block)
    )


def verify_ticket(text: str, key: bytes, *, worker: str, now: float) -> Ticket:
    """The ticket in the text, after checks of its signature, worker and expiry.

    The worker itself checks single use, because only it knows the tickets that it has received.

    Raises:
        TicketRefused: forged, for another worker, or expired.
    """
    body, dot, mac = text.encode("utf-8", "surrogatepass").partition(b".")
    expected = ticket_mac(key, body)
    if not dot or not any(hmac.compare_digest(one, expected) for one in mac.split(b".")[:_MACS_MAX]):
        raise TicketRefused("ticket_forged", "the ticket is not signed with this worker's key; route again")
    try:
        fields = parse_json(from_base64(body))
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
