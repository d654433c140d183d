"""Who may use this worker: a ticket's seal, worker, expiry and single use."""

import base64
import binascii
import hashlib
import hmac

import msgspec

from stoker_wire.problem import Problem
from stoker_wire.security.ticket import Ticket, TicketRefused, verify_ticket

_BUCKET_SECONDS = 10


class _Wire(msgspec.Struct, forbid_unknown_fields=True):
    """A ticket's JSON (`stoker_wire.security.ticket.Ticket`), read by msgspec: a quarter of the time."""

    e: str
    w: str
    c: float
    r: int
    n: int
    x: float


_wire = msgspec.json.Decoder(_Wire)


def unseal_fast(text: str, key: bytes, *, worker: str, now: float) -> Ticket:
    """The same as `stoker_wire.security.ticket.verify_ticket`; whatever is not a plain valid ticket is judged by that one.

    Raises:
        TicketRefused: forged, for another worker, or expired.
    """
    body, dot, mac = text.encode("utf-8", "replace").partition(b".")
    expected = binascii.b2a_base64(hmac.digest(key, body, hashlib.sha256), newline=False)
    # 32 bytes are 44 characters of base64, of which the last is padding and goes.
    if dot and hmac.compare_digest(mac, expected[:43].translate(_URLSAFE)):
        try:
            wire = _wire.decode(base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4)))
        except (msgspec.DecodeError, ValueError, RecursionError):
            pass
        else:
            if wire.w == worker and wire.c >= 0 and now <= wire.x:
                return Ticket(e=wire.e, w=wire.w, c=wire.c, r=wire.r, n=wire.n, x=wire.x)
    return verify_ticket(text, key, worker=worker, now=now)


_URLSAFE = bytes.maketrans(b"+/", b"-_")


class TicketGate:
    """Lets each valid ticket through once. What it remembers is bounded: a ticket that has expired needs no memory."""

    def __init__(self, key: bytes, worker: str) -> None:
        self._key = key
        self._worker = worker
        self._used: dict[int, set[tuple[int, int]]] = {}
        self._forgotten_before = 0
        """The first bucket of which everything is remembered: a clock that is put back opens no older ticket again."""

    def check(self, text: str, now: float) -> Ticket:
        """The ticket, if it may be used now; it is not used up yet.

        Raises:
            Problem: 401, with the reason as its code.
        """
        if not text:
            raise Problem(
                401, "ticket_missing", "the request carries no ticket; route it with POST /route/ first"
            )
        try:
            ticket = unseal_fast(text, self._key, worker=self._worker, now=now)
        except TicketRefused as refused:
            raise Problem(401, refused.code, str(refused)) from None
        except UnicodeEncodeError:
            raise Problem(401, "ticket_forged", "the ticket is not text; route again") from None
        bucket = int(ticket.x) // _BUCKET_SECONDS
        if bucket < self._forgotten_before:
            raise Problem(401, "ticket_expired", "the ticket has expired; route again")
        used = self._used.get(bucket)
        if used is not None and (ticket.r, ticket.n) in used:
            raise Problem(401, "ticket_used", "the ticket was used already; route again for another one")
        return ticket

    def use(self, ticket: Ticket, now: float) -> None:
        """From now on the ticket is worthless."""
        bucket = int(ticket.x) // _BUCKET_SECONDS
        used = self._used.get(bucket)
        if used is None:
            used = self._used[bucket] = set()
            oldest = self._forgotten_before = max(self._forgotten_before, int(now) // _BUCKET_SECONDS)
            for old in [key for key in self._used if key < oldest]:
                del self._used[old]
        used.add((ticket.r, ticket.n))

    @property
    def remembered(self) -> int:
        """Used tickets held in memory."""
        return sum(map(len, self._used.values()))
