"""An endpoint's queue of requests. `policy.routing.priority_queue` decides the order of service."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from engine.routing.client_keys import NORMAL_CLASS, ClientKeyAccount
from engine.routing.worker import KnownWorker
from policy.routing.priority_queue import PriorityQueue
from policy.routing.queue_discipline import SortKey


@dataclass(frozen=True, slots=True)
class BreakSuspect:
    """A worker that failed a request and may have broken because of it."""

    worker: KnownWorker
    failed_at: float
    """Unix seconds."""


class QueuedRequest:
    """One request of an endpoint: waiting for a worker, or assigned to one and remembered for a re-route."""

    __slots__ = (
        "account",
        "affinity",
        "arrived_at",
        "assigned_at",
        "avoid",
        "break_suspect",
        "cost",
        "counted_elsewhere",
        "dollars",
        "finished",
        "key",
        "paused_until",
        "priority_class",
        "refusal",
        "replay_timeout",
        "reqnum",
        "request_idx",
        "rerouted_at",
        "seen_at",
        "succeeded",
        "took_s",
        "turned_away",
        "unread_by",
        "waited_s",
        "wake",
        "worker",
    )

    def __init__(
        self, request_idx: int, cost: float, now: float, replay_timeout: float, fingerprint: str = ""
    ) -> None:
        self.request_idx = request_idx
        self.key = fingerprint or f"#{request_idx}"
        """Equal for all copies of the request, if the client sends fingerprints."""
        self.cost = cost
        self.affinity = 0
        """`policy.routing.affinity.affinity_point` of the client's key; 0: it sent none."""
        self.account: ClientKeyAccount | None = None
        """The named key that sent it; None: the endpoint's key or an account's."""
        self.dollars = 0.0
        """What its worker's time costs, as counted against the key."""
        self.priority_class = NORMAL_CLASS
        """Fixed on arrival, because the queue is sorted by it."""
        self.arrived_at = now
        self.seen_at = now
        """Time of the last call, or end of the last held call, Unix seconds."""
        self.replay_timeout = replay_timeout
        self.wake: Callable[[bool], None] | None = None
        """Ends the held call; the argument says whether a worker was assigned. None: no call is held."""
        self.worker: KnownWorker | None = None
        self.assigned_at = 0.0
        self.reqnum = 0
        self.finished = False
        """The worker reported the request's end. The client's word about the worker does not count then."""
        self.avoid: frozenset[str] = frozenset()
        """Launch ids of workers that failed this request."""
        self.unread_by: frozenset[str] = frozenset()
        """Launch ids of workers that did not process it, as its client says and no report has denied."""
        self.rerouted_at = -math.inf
        """When the client last asked again after a worker had been assigned."""
        self.paused_until = -math.inf
        self.turned_away = False
        """The queue was full on arrival."""
        self.counted_elsewhere = False
        """It arrived with an index unknown to this engine; another engine, or this one before a restart, counted it."""
        self.waited_s: float | None = None
        """From arrival to the first assignment, seconds."""
        self.took_s: float | None = None
        """From the last assignment to the worker's report of the end, seconds."""
        self.succeeded = False
        self.refusal = ""
        """Why it is no longer sent to any worker; empty: it is not refused."""
        self.break_suspect: BreakSuspect | None = None
        """The request waits until it is known whether this worker broke."""

    @property
    def order(self) -> SortKey:
        """Sort key. A request whose worker failed it comes before those that had no worker yet."""
        return (self.waited_s is None, self.arrived_at, self.request_idx)

    @property
    def is_identified(self) -> bool:
        """Whether its key names its content."""
        return not self.key.startswith("#")

    def __repr__(self) -> str:
        where = (
            f"assigned to {self.worker.launch_id}"
            if self.worker
            else "held"
            if self.wake
            else "between calls"
        )
        return f"<QueuedRequest {self.request_idx} {where}>"


def _order(request: QueuedRequest) -> SortKey:
    return request.order


def _class(request: QueuedRequest) -> int:
    return request.priority_class


def _cost(request: QueuedRequest) -> float:
    return request.cost


class RequestQueue:
    """The waiting requests. Only those with a held call can be served; the others keep their position."""

    __slots__ = ("_all", "_held", "load")

    def __init__(self) -> None:
        self._all: PriorityQueue[QueuedRequest] = PriorityQueue(_order, class_of=_class, cost_of=_cost)
        self._held: PriorityQueue[QueuedRequest] = PriorityQueue(_order, class_of=_class, cost_of=_cost)
        self.load = 0.0
        """Summed cost of all waiting requests."""

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[QueuedRequest]:
        return iter(self._all)

    def __repr__(self) -> str:
        return f"<RequestQueue of {len(self._all)}, {len(self._held)} held, {self.load:g} load>"

    @property
    def held_count(self) -> int:
        """Number of held calls."""
        return len(self._held)

    @property
    def oldest(self) -> QueuedRequest | None:
        """The request that arrived first."""
        return self._all.oldest

    def held(self) -> list[QueuedRequest]:
        """Requests with a held call, class by class."""
        return list(self._held)

    def in_service_order(self, late_cutoff: float) -> Iterator[QueuedRequest]:
        """Requests with a held call in order of service; those that arrived before `late_cutoff` are late."""
        return self._held.in_service_order(late_cutoff)

    def add(self, request: QueuedRequest) -> None:
        """Add a request at the position of its first arrival."""
        self._all.add(request)
        self.load += request.cost

    def remove(self, request: QueuedRequest) -> None:
        """Remove a request that was not served."""
        self._all.remove(request)
        self.load = self.load - request.cost if self._all else 0.0
        self.end_hold(request)

    def serve(self, request: QueuedRequest, late_cutoff: float) -> None:
        """Remove a request that gets a worker."""
        if request.wake is not None:
            self._held.serve(request, late_cutoff)
            request.wake = None
        self.remove(request)

    def hold(self, request: QueuedRequest, wake: Callable[[bool], None]) -> None:
        """A call is held for the request; an earlier held call of it is ended."""
        before, request.wake = request.wake, wake
        if before is None:
            self._held.add(request)
        else:
            before(False)

    def end_hold(self, request: QueuedRequest) -> None:
        """No call is held for the request any more; it keeps its position."""
        if request.wake is not None:
            request.wake = None
            self._held.remove(request)

    def position(self, request: QueuedRequest, late_cutoff: float) -> int:
        """Number of requests that are served before it."""
        return self._all.position(request, late_cutoff)

    def displaced_by(self, request: QueuedRequest) -> QueuedRequest:
        """The request that leaves the full queue when this one arrives."""
        return self._all.displaced_by(request)

    def expired(self, now: float) -> list[QueuedRequest]:
        """Requests whose client has not asked again within the replay timeout."""
        return [each for each in self._all if each.wake is None and now - each.seen_at > each.replay_timeout]
