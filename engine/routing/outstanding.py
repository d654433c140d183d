"""Outstanding load of one worker: the load that it reported, plus assigned requests that no report shows yet."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from policy.tuning import DEFAULT_TUNING


@dataclass(slots=True)
class OpenTicket:
    """An issued ticket that the worker has not shown in a report yet."""

    cost: float
    assigned_at: float
    expires_at: float
    """The worker refuses the ticket after this time."""
    expected: bool = True
    """Whether its load counts. False once the worker had time to report the request and did not."""


class OutstandingLoad:
    """Tickets issued, seen and expired. Times are arguments, Unix seconds."""

    __slots__ = ("_expected", "_open", "_reports_here", "_working", "open_load", "reported_load")

    def __init__(self) -> None:
        self._open: dict[int, OpenTicket] = {}
        self._expected = 0
        self._reports_here = False
        """Whether the worker reports to this engine. Otherwise a missing report is no evidence."""
        self._working: dict[int, float] = {}
        self.open_load = 0.0
        """Load of open tickets that are still expected."""
        self.reported_load = 0.0

    def __repr__(self) -> str:
        return f"<OutstandingLoad {self.load:g} load, {len(self._open)} tickets open>"

    @property
    def load(self) -> float:
        """Load that the worker has to do before a new request."""
        return self.reported_load + self.open_load

    @property
    def tickets_open(self) -> int:
        """Number of tickets that the worker has not shown and that have not expired."""
        return len(self._open)

    @property
    def first_open(self) -> OpenTicket | None:
        """The oldest open ticket that is still expected: the request that an idle worker starts next."""
        return next((ticket for ticket in self._open.values() if ticket.expected), None)

    def knows(self, request_idx: int) -> bool:
        """Whether this engine assigned the request to the worker and it has not ended."""
        return request_idx in self._open or request_idx in self._working

    @property
    def requests(self) -> set[int]:
        """Indices of assigned requests that have not ended."""
        return self._open.keys() | self._working.keys()

    def issue(self, request_idx: int, cost: float, *, now: float, expires_at: float) -> None:
        """A ticket for the worker was issued."""
        self.withdraw(request_idx)
        self._open[request_idx] = OpenTicket(cost, now, expires_at)
        self._expected += 1
        self.open_load += cost

    def withdraw(self, request_idx: int) -> None:
        """The client never got the ticket, or gave the worker up."""
        ticket = self._open.pop(request_idx, None)
        if ticket is not None:
            self._stop_expecting(ticket)

    def report(self, load: float, working: Iterable[int], now: float) -> None:
        """Apply a report. Requests that this engine did not assign are ignored."""
        still: dict[int, float] = {}
        for request_idx in working:
            ticket = self._open.pop(request_idx, None)
            if ticket is not None:
                self._stop_expecting(ticket)
                still[request_idx] = ticket.cost
            elif request_idx in self._working:
                still[request_idx] = self._working[request_idx]
        self._working = still
        self._reports_here = True
        self.reported_load = load
        self._expire_expectations(now)

    def finish(self, request_idx: int) -> bool:
        """The request ended on the worker; False if this engine had not assigned it."""
        ticket = self._open.pop(request_idx, None)
        if ticket is not None:
            self._stop_expecting(ticket)
            return True
        cost = self._working.pop(request_idx, None)
        if cost is None:
            return False
        self.reported_load = max(0.0, self.reported_load - cost)
        return True

    def expire(self, now: float) -> int:
        """Drop expired tickets; returns their number.

        An idle worker reports again only after a change, so no report means that no request reached it.
        """
        expired = list(self._expired(now))
        for request_idx in expired:
            self._stop_expecting(self._open.pop(request_idx))
        if self._reports_here and not (self.reported_load or self._working):
            self._expire_expectations(now)
        return len(expired)

    def clear_report(self) -> None:
        """The worker's process ended together with its requests."""
        self._working.clear()
        self._reports_here = False
        self.reported_load = 0.0

    def _expired(self, now: float) -> Iterator[int]:
        # Tickets are issued in order and have the same lifetime, so the first valid one ends the search.
        for request_idx, ticket in self._open.items():
            if ticket.expires_at > now:
                return
            yield request_idx

    def _expire_expectations(self, now: float) -> None:
        """Drop the load of tickets that the worker would have reported by now. They stay open and usable."""
        for ticket in self._open.values():
            if ticket.assigned_at + DEFAULT_TUNING.ticket_shown_seconds > now:
                return
            self._stop_expecting(ticket)

    def _stop_expecting(self, ticket: OpenTicket) -> None:
        if not ticket.expected:
            return
        ticket.expected = False
        self._expected -= 1
        # Rounding errors of many additions would keep the sum from returning to exactly zero.
        self.open_load = self.open_load - ticket.cost if self._expected else 0.0
