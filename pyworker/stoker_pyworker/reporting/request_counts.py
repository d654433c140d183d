"""The worker's books: what it holds, what came, went, was refused; and what the engine has been told of that."""

import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum

import msgspec

_FINISHED_MAX = 200_000
"""Ended requests kept for an engine that does not answer: about an hour at 50 requests a second."""


class Outcome(StrEnum):
    """How a request ended, in the words of the wire."""

    SUCCESS = "Success"
    ERROR = "Error"
    CANCELLED = "Cancelled"
    REJECTED = "Rejected"


class Work:
    """A request, or a session, that occupies the worker."""

    __slots__ = ("entered_at", "is_session", "request_idx", "started_at", "workload")

    def __init__(self, request_idx: int, workload: float, *, is_session: bool = False) -> None:
        self.request_idx = request_idx
        self.workload = workload
        self.is_session = is_session
        self.entered_at = 0.0
        """Unix time, s."""
        self.started_at = 0.0


class Finished(msgspec.Struct):
    """One item of `POST /delete_requests/` (`stoker_wire.worker_status.FinishedRequest`)."""

    request_idx: int
    success: bool
    status: str
    entered_queue_at: float
    work_started_at: float
    work_completed_at: float


class Totals(msgspec.Struct, frozen=True):
    """Sums since the start: a report tells the difference to those last acknowledged."""

    new: float = 0.0
    """Workload received, less what was cancelled."""
    rejected: float = 0.0
    served: float = 0.0


class RequestCounts:
    """Deltas are differences of totals, so a report that failed loses none and one that came late doubles none."""

    def __init__(self) -> None:
        self.received = 0
        """Requests taken since the start."""
        self.refused = 0
        """Requests turned away without a valid ticket: never reported, anyone can make them up."""
        self.never_told = 0
        """Ended requests that no engine will hear of: it refused them, or they were too many while none listened."""
        self.load = 0.0
        """Workload held now, sessions included."""
        self.queue_load = 0.0
        """Workload held now that one more request waits behind: sessions left out."""
        self.changed = False
        """Something happened since the last report was made."""
        self.work_ended: Callable[[], None] = lambda: None
        """Called when a request or session is over or refused; the next in line has its turn by then."""
        self._new = self._rejected = self._served = 0.0
        self._held: set[Work] = set()
        self._finished: deque[Finished] = deque(maxlen=_FINISHED_MAX)
        self._first = 0

    def enter(self, work: Work) -> None:
        """The worker takes it."""
        work.entered_at = time.time()
        self.received += 1
        self._held.add(work)
        self._new += work.workload
        self.load += work.workload
        if not work.is_session:
            self.queue_load += work.workload
        self.changed = True

    def leave(self, work: Work, outcome: Outcome) -> None:
        """It is over."""
        self._held.discard(work)
        self.load -= work.workload
        if not work.is_session:
            self.queue_load -= work.workload
        if outcome is Outcome.SUCCESS:
            self._served += work.workload
        elif outcome is Outcome.CANCELLED:
            self._new -= work.workload
        self._finish(work, outcome)
        if not self._held:
            # What adding and subtracting floats left over.
            self.load = self.queue_load = 0.0
        self.work_ended()

    def reject(self, work: Work) -> None:
        """It had a valid ticket and was refused all the same."""
        work.entered_at = time.time()
        self._rejected += work.workload
        self._finish(work, Outcome.REJECTED)
        self.work_ended()

    def _finish(self, work: Work, outcome: Outcome) -> None:
        self.changed = True
        if len(self._finished) == _FINISHED_MAX:
            self._first += 1
            self.never_told += 1
        self._finished.append(
            Finished(
                work.request_idx,
                outcome is Outcome.SUCCESS or outcome is Outcome.CANCELLED,
                outcome.value,
                work.entered_at,
                work.started_at or work.entered_at,
                time.time(),
            )
        )

    def totals(self) -> Totals:
        """The sums as they are now."""
        return Totals(self._new, self._rejected, self._served)

    @property
    def held(self) -> int:
        """Requests and sessions held now."""
        return len(self._held)

    def held_indices(self) -> list[int]:
        """The request indices held now."""
        return [work.request_idx for work in self._held]

    def finished(self, most: int) -> tuple[int, list[Finished]]:
        """The oldest ended requests not told yet, and the mark to give to `told`."""
        items = [self._finished[index] for index in range(min(most, len(self._finished)))]
        return self._first + len(items), items

    def told(self, mark: int) -> None:
        """The ended requests before the mark have reached the engine."""
        while self._first < mark and self._finished:
            self._finished.popleft()
            self._first += 1

    def give_up(self, mark: int) -> None:
        """The ended requests before the mark, which have not reached the engine, are not told any more."""
        before = self._first
        self.told(mark)
        self.never_told += self._first - before

    @property
    def untold(self) -> int:
        """Ended requests that the engine has not been told of."""
        return len(self._finished)
