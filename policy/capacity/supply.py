"""Supply: the capacity that exists, split into ready, booting and cold."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from policy.capacity.performance import LOAD_EPSILON, PerfEstimates
from policy.state.lifecycle import is_booting, is_cold, is_hot
from policy.state.operator_actions import is_held
from policy.state.worker import Goal, Worker

_RESTARTS = (Goal.UPDATE, Goal.REBOOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """Existing capacity. Capacities are load/s."""

    ready: float
    booting: float
    cold: float
    overtaken: float = 0.0
    """The part of `booting` that would be ready later than a cold worker started now."""
    draining_hot: float
    """Ready workers that drain and stay cold afterwards."""
    unknown_booting: int
    """Number of booting workers with unknown perf. One of them is assumed to be enough."""
    keepable: int
    """Number of workers that have loaded or are about to, and that are not being released."""

    @property
    def hot(self) -> float:
        """Ready and booting capacity."""
        return self.ready + self.booting

    @property
    def total(self) -> float:
        """Hot and cold capacity."""
        return self.ready + self.booting + self.draining_hot + self.cold


def takes_requests(worker: Worker) -> bool:
    """Whether a worker accepts requests now: ready, not draining, and not suspected of being unreachable."""
    return is_hot(worker) and worker.drain is None and worker.suspect_since is None


def holds_requests(worker: Worker) -> bool:
    """Whether requests would be lost with the worker: in flight, in a session, or routed with an open ticket."""
    return worker.in_flight > 0 or worker.tickets_open > 0 or worker.load > LOAD_EPSILON


def stays_after_drain(worker: Worker) -> bool:
    """Whether a worker stays with the endpoint after its drain. True for workers that do not drain."""
    return worker.drain is None or worker.drain.goal is not Goal.DESTROY


def measure_supply(
    workers: Iterable[Worker],
    perfs: PerfEstimates,
    *,
    is_overtaken: Callable[[Worker], bool] = lambda _: False,
    is_overdue: Callable[[Worker], bool] = lambda _: False,
) -> Supply:
    """The capacity of these workers.

    `is_overtaken`: whether a cold worker started now would be ready before this booting worker.
    `is_overdue`: whether this booting worker is late; overdue workers do not count as capacity.
    """
    ready = booting = cold = draining = overtaken = 0.0
    unknown = keepable = 0
    for worker in workers:
        perf = worker.perf or perfs.worker(worker)
        stays = stays_after_drain(worker) and not is_held(worker)
        if is_hot(worker):
            if worker.drain is None and worker.suspect_since is None:
                ready += perf
            elif worker.drain is not None and worker.drain.goal in _RESTARTS:
                booting += perf
            else:
                draining += perf if stays else 0.0
            keepable += stays
        elif is_booting(worker):
            if stays and not is_overdue(worker):
                booting += perf
                overtaken += perf if is_overtaken(worker) else 0.0
                unknown += perf <= 0
            keepable += stays
        elif is_cold(worker):
            cold += perf if stays else 0.0
            keepable += stays
    return Supply(
        ready=ready,
        booting=booting,
        overtaken=overtaken,
        cold=cold,
        draining_hot=draining,
        unknown_booting=unknown,
        keepable=keepable,
    )
