"""Verifies tickets: signature, worker, expiry and single use."""

import hmac

import msgspec

from stoker_wire.errors.problem import Problem
from stoker_wire.security.ticket import Ticket, TicketRefused, from_base64, ticket_mac, verify_ticket

_BUCKET_SECONDS = 10


class _TicketFields(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON of a ticket (`stoker_wire.security.ticket.Ticket`). msgspec decodes it in a quarter of the time."""

    e: str
    w: str
    c: float
    r: int
    n: int
    x: float
    b: tuple[str, ...] = ()


_fields = msgspec.json.Decoder(_TicketFields)


def verify_ticket_fast(text: str, key: bytes, *, worker: str, now: float) -> Ticket:
    """A fast path of `stoker_wire.security.ticket.verify_ticket`, which decides every ticket that is not plainly valid.

    Raises:
        TicketRefused: forged, for another worker, or expired.
    """
    body, _, shown = text.encode("utf-8", "replace").partition(b".")
    if hmac.compare_digest(shown, ticket_mac(key, body)):
        try:
            wire = _fields.decode(from_base64(body))
        except (msgspec.DecodeError, ValueError, RecursionError):
            pass
        else:
            if wire.w == worker and wire.c >= 0 and now <= wire.x:
                return Ticket(e=wire.e, w=wire.w, c=wire.c, r=wire.r, n=wire.n, x=wire.x, b=wire.b)
    return verify_ticket(text, key, worker=worker, now=now)


class TicketVerifier:
    """Accepts each valid ticket once. Expired tickets are forgotten, so its memory is bounded."""

    def __init__(self, key: bytes, worker: str) -> None:
        self._key = key
        self._worker = worker
        self._used: dict[int, set[tuple[int, int]]] = {}
        """(request, number) of used tickets by expiry bucket."""
        self._first_bucket = 0
        """Earlier buckets are forgotten. Their tickets stay refused even if the clock is set back."""

    def verify(self, text: str, now: float) -> Ticket:
        """The ticket, if it is valid now. It is not marked as used yet.

        Raises:
            Problem: 401, with the reason as its code.
        """
        if not text:
            raise Problem(
                401, "ticket_missing", "the request carries no ticket; route it with POST /route/ first"
            )
        try:
            ticket = verify_ticket_fast(text, self._key, worker=self._worker, now=now)
        except TicketRefused as refused:
            raise Problem(401, refused.code, str(refused)) from None
        bucket = int(ticket.x) // _BUCKET_SECONDS
        if bucket < self._first_bucket:
            raise Problem(401, "ticket_expired", "the ticket has expired; route again")
        used = self._used.get(bucket)
        if used is not None and (ticket.r, ticket.n) in used:
            raise Problem(401, "ticket_used", "the ticket was used already; route again for another one")
        return ticket

    def mark_used(self, ticket: Ticket, now: float) -> None:
        """Refuse the ticket from now on."""
        bucket = int(ticket.x) // _BUCKET_SECONDS
        used = self._used.get(bucket)
        if used is None:
            used = self._used[bucket] = set()
            oldest = self._first_bucket = max(self._first_bucket, int(now) // _BUCKET_SECONDS)
            for old in [key for key in self._used if key < oldest]:
                del self._used[old]
        used.add((ticket.r, ticket.n))

    @property
    def used_count(self) -> int:
        """Used tickets in memory."""
        return sum(map(len, self._used.values()))
