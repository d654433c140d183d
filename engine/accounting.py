"""What a worker holds, as one engine knows it: what it reported, plus what was routed to it and not yet seen."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(slots=True)
class Booking:
    """One route answer that named the worker and that the worker has not shown in a report yet."""

    cost: float
    given_at: float
    expires_at: float
    """After that its ticket is worthless, and the load is no longer expected."""


class Ledger:
    """Route answers issued, seen and expired; times are arguments."""

    __slots__ = ("_open", "_working", "open_load", "reported_load")

    def __init__(self) -> None:
        self._open: dict[int, Booking] = {}
        self._working: dict[int, float] = {}
        self.open_load = 0.0
        """Load routed and not yet seen."""
        self.reported_load = 0.0

    def __repr__(self) -> str:
        return f"<Ledger {self.outstanding:g} load, {len(self._open)} tickets open>"

    @property
    def outstanding(self) -> float:
        """Load that the worker has to do before a new request."""
        return self.reported_load + self.open_load

    @property
    def tickets_open(self) -> int:
        """Route answers that the worker has not seen and that have not expired."""
        return len(self._open)

    @property
    def first_open(self) -> Booking | None:
        """The oldest of those: what an idle worker began, or is about to."""
        return next(iter(self._open.values()), None)

    def knows(self, request_idx: int) -> bool:
        """Whether this request was given to the worker by this engine and has not ended."""
        return request_idx in self._open or request_idx in self._working

    def issue(self, request_idx: int, cost: float, *, now: float, expires_at: float) -> None:
        """The worker was named in an answer."""
        before = self._open.pop(request_idx, None)
        if before is not None:
            self.open_load -= before.cost
        self._open[request_idx] = Booking(cost, now, expires_at)
        self.open_load += cost

    def withdraw(self, request_idx: int) -> None:
        """The answer never reached its client, or the client gave the worker up."""
        booking = self._open.pop(request_idx, None)
        if booking is not None:
            self._book_off(booking.cost)

    def report(self, load: float, working: Iterable[int]) -> None:
        """The worker said what it holds. Requests that this engine did not give it are ignored."""
        still: dict[int, float] = {}
        for request_idx in working:
            booking = self._open.pop(request_idx, None)
            if booking is not None:
                self._book_off(booking.cost)
                still[request_idx] = booking.cost
            elif request_idx in self._working:
                still[request_idx] = self._working[request_idx]
        self._working = still
        self.reported_load = load

    def finish(self, request_idx: int) -> bool:
        """The request ended on the worker; False if it was never given to it."""
        booking = self._open.pop(request_idx, None)
        if booking is not None:
            self._book_off(booking.cost)
            return True
        cost = self._working.pop(request_idx, None)
        if cost is None:
            return False
        self.reported_load = max(0.0, self.reported_load - cost)
        return True

    def expire(self, now: float) -> int:
        """Forget tickets that ran out; answers how many did."""
        expired = list(self._expired(now))
        for request_idx in expired:
            self._book_off(self._open.pop(request_idx).cost)
        return len(expired)

    def clear_report(self) -> None:
        """The process behind it is gone: what it held is gone with it."""
        self._working.clear()
        self.reported_load = 0.0

    def _expired(self, now: float) -> Iterator[int]:
        # Issued in order and with one lifetime, so the first that is not due ends the search.
        for request_idx, booking in self._open.items():
            if booking.expires_at > now:
                return
            yield request_idx

    def _book_off(self, cost: float) -> None:
        # A sum of many floats never comes back to exactly zero by itself.
        self.open_load = self.open_load - cost if self._open else 0.0
