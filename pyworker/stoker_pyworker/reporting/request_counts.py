"""Counts requests and their load, and remembers which of them the engine has acknowledged."""

import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum

import msgspec

_FINISHED_MAX = 200_000
"""Ended requests kept while no engine answers: about an hour at 50 requests a second."""


class Outcome(StrEnum):
    """How a request ended, as sent to the engine."""

    SUCCESS = "Success"
    ERROR = "Error"
    CANCELLED = "Cancelled"
    REJECTED = "Rejected"


class Work:
    """A request, or a session, that uses the worker's capacity."""

    __slots__ = (
        "entered_at",
        "fingerprint",
        "first_byte_at",
        "is_session",
        "request_idx",
        "started_at",
        "workload",
    )

    def __init__(self, request_idx: int, workload: float, *, is_session: bool = False) -> None:
        self.request_idx = request_idx
        self.workload = workload
        self.is_session = is_session
        self.entered_at = 0.0
        """Unix time, s."""
        self.started_at = 0.0
        """Unix time, s; 0 while it waits in the queue."""
        self.first_byte_at = 0.0
        """Unix time, s, of the first bytes of the answer's body; 0: none yet."""
        self.fingerprint = ""
        """Of the request's content, if the model failed with it."""


class Finished(msgspec.Struct):
    """One item of `POST /delete_requests/` (`stoker_wire.worker_status.FinishedRequest`)."""

    request_idx: int
    success: bool
    status: str
    entered_queue_at: float
    work_started_at: float
    work_completed_at: float
    work_first_byte_at: float = 0.0
    fingerprint: str = ""


class Totals(msgspec.Struct, frozen=True):
    """Sums since the start. A report sends the difference to the totals that were last acknowledged."""

    new: float = 0.0
    """Workload received, less what was cancelled."""
    rejected: float = 0.0
    served: float = 0.0


class RequestCounts:
    """Reports are differences of totals, so a failed report loses nothing and a late one counts nothing twice."""

    def __init__(self, *, on_work_ended: Callable[[], None] = lambda: None) -> None:
        """`on_work_ended` is called after a request or session has ended or was rejected."""
        self.received = 0
        """Requests accepted since the start."""
        self.refused = 0
        """Requests without a valid ticket. Never reported, because anyone can send them."""
        self.dropped = 0
        """Ended requests that are never reported: the engine refused them, or too many were waiting."""
        self.load = 0.0
        """Workload held now, sessions included."""
        self.queue_load = 0.0
        """Workload in front of a new request: without sessions."""
        self.changed = False
        """Something has changed since the last report."""
        self._on_work_ended = on_work_ended
        self._new = self._rejected = self._served = 0.0
        self._held: set[Work] = set()
        self._finished: deque[Finished] = deque(maxlen=_FINISHED_MAX)
        self._first = 0
        """Number of the first item of `_finished`, counted from the start."""

    def accept(self, work: Work) -> None:
        """The worker accepts the work."""
        work.entered_at = time.time()
        self.received += 1
        self._held.add(work)
        self._new += work.workload
        self.load += work.workload
        if not work.is_session:
            self.queue_load += work.workload
        self.changed = True

    def finish(self, work: Work, outcome: Outcome) -> None:
        """The work has ended."""
        self._held.discard(work)
        self.load -= work.workload
        if not work.is_session:
            self.queue_load -= work.workload
        if outcome is Outcome.SUCCESS:
            self._served += work.workload
        elif outcome is Outcome.CANCELLED:
            self._new -= work.workload
        self._append_finished(work, outcome)
        if not self._held:
            # Remove the rounding error of float sums.
            self.load = self.queue_load = 0.0
        self._on_work_ended()

    def reject(self, work: Work) -> None:
        """The work had a valid ticket and was refused."""
        work.entered_at = time.time()
        self._rejected += work.workload
        self._append_finished(work, Outcome.REJECTED)
        self._on_work_ended()

    def _append_finished(self, work: Work, outcome: Outcome) -> None:
        self.changed = True
        if len(self._finished) == _FINISHED_MAX:
            self._first += 1
            self.dropped += 1
        self._finished.append(
            Finished(
                work.request_idx,
                outcome is Outcome.SUCCESS or outcome is Outcome.CANCELLED,
                outcome.value,
                work.entered_at,
                work.started_at or work.entered_at,
                time.time(),
                work.first_byte_at,
                work.fingerprint,
            )
        )

    def totals(self) -> Totals:
        """The current sums."""
        return Totals(self._new, self._rejected, self._served)

    @property
    def held(self) -> int:
        """Requests and sessions held now."""
        return len(self._held)

    def held_indices(self) -> list[int]:
        """The request indices held now."""
        return [work.request_idx for work in self._held]

    def next_finished(self, limit: int) -> tuple[int, list[Finished]]:
        """The oldest unreported ended requests, and the mark to pass to `acknowledge` or `drop`."""
        items = [self._finished[index] for index in range(min(limit, len(self._finished)))]
        return self._first + len(items), items

    def acknowledge(self, mark: int) -> None:
        """The engine has received the ended requests before the mark."""
        while self._first < mark and self._finished:
            self._finished.popleft()
            self._first += 1

    def drop(self, mark: int) -> None:
        """Give up the unreported ended requests before the mark."""
        before = self._first
        self.acknowledge(mark)
        self.dropped += self._first - before

    @property
    def unreported(self) -> int:
        """Ended requests that the engine has not acknowledged."""
        return len(self._finished)
