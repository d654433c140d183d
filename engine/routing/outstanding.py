"""What a worker holds, as one engine knows it: what it reported, plus what was routed to it and not yet seen."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

SHOWN_SECONDS = 3.0
"""A worker shows a new request within so many seconds: it reports a change after 1 s, and the client has to reach it first.

Twice as long: a path that does not exist, or a client that never comes, keeps an idle worker from others for longer.
"""


@dataclass(slots=True)
class Booking:
    """One route answer that named the worker and that the worker has not shown in a report yet."""

    cost: float
    given_at: float
    expires_at: float
    """After that its ticket is worthless."""
    expected: bool = True
    """Whether its load counts; not once the worker has had time to show it and has not."""


class OutstandingLoad:
    """Route answers issued, seen and expired; times are arguments."""

    __slots__ = ("_expected", "_heard", "_open", "_working", "open_load", "reported_load")

    def __init__(self) -> None:
        self._open: dict[int, Booking] = {}
        self._expected = 0
        self._heard = False
        """Whether it reports to this engine: of one that reports to another, silence says nothing."""
        self._working: dict[int, float] = {}
        self.open_load = 0.0
        """Load routed, not yet seen, and still expected."""
        self.reported_load = 0.0

    def __repr__(self) -> str:
        return f"<OutstandingLoad {self.outstanding:g} load, {len(self._open)} tickets open>"

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
        """The oldest of those that are still expected: what an idle worker began, or is about to."""
        return next((booking for booking in self._open.values() if booking.expected), None)

    def knows(self, request_idx: int) -> bool:
        """Whether this request was given to the worker by this engine and has not ended."""
        return request_idx in self._open or request_idx in self._working

    @property
    def requests(self) -> set[int]:
        """Requests that it was given and that have not ended."""
        return self._open.keys() | self._working.keys()

    def issue(self, request_idx: int, cost: float, *, now: float, expires_at: float) -> None:
        """The worker was named in an answer."""
        self.withdraw(request_idx)
        self._open[request_idx] = Booking(cost, now, expires_at)
        self._expected += 1
        self.open_load += cost

    def withdraw(self, request_idx: int) -> None:
        """The answer never reached its client, or the client gave the worker up."""
        booking = self._open.pop(request_idx, None)
        if booking is not None:
            self._book_off(booking)

    def report(self, load: float, working: Iterable[int], now: float) -> None:
        """The worker said what it holds. Requests that this engine did not give it are ignored."""
        still: dict[int, float] = {}
        for request_idx in working:
            booking = self._open.pop(request_idx, None)
            if booking is not None:
                self._book_off(booking)
                still[request_idx] = booking.cost
            elif request_idx in self._working:
                still[request_idx] = self._working[request_idx]
        self._working = still
        self._heard = True
        self.reported_load = load
        self._expect_no_more(now)

    def finish(self, request_idx: int) -> bool:
        """The request ended on the worker; False if it was never given to it."""
        booking = self._open.pop(request_idx, None)
        if booking is not None:
            self._book_off(booking)
            return True
        cost = self._working.pop(request_idx, None)
        if cost is None:
            return False
        self.reported_load = max(0.0, self.reported_load - cost)
        return True

    def expire(self, now: float) -> int:
        """Forget tickets that ran out; answers how many did.

        A worker that reported itself idle reports again only when that changes, so its silence says that nothing has come.
        """
        expired = list(self._expired(now))
        for request_idx in expired:
            self._book_off(self._open.pop(request_idx))
        if self._heard and self.reported_load <= 0 and not self._working:
            self._expect_no_more(now)
        return len(expired)

    def clear_report(self) -> None:
        """The process behind it is gone: what it held is gone with it."""
        self._working.clear()
        self._heard = False
        self.reported_load = 0.0

    def _expired(self, now: float) -> Iterator[int]:
        # Issued in order and with one lifetime, so the first that is not due ends the search.
        for request_idx, booking in self._open.items():
            if booking.expires_at > now:
                return
            yield request_idx

    def _expect_no_more(self, now: float) -> None:
        """Drop the load of tickets that the worker would have shown by now; they stay open, as they may still be used."""
        for booking in self._open.values():
            if booking.given_at + SHOWN_SECONDS > now:
                return
            self._book_off(booking)

    def _book_off(self, booking: Booking) -> None:
        if not booking.expected:
            return
        booking.expected = False
        self._expected -= 1
        # A sum of many floats never comes back to exactly zero by itself.
        self.open_load = self.open_load - booking.cost if self._expected else 0.0
