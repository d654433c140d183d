"""What a fleet takes of its budget, kept up to date from worker to worker: summing it anew for each would be quadratic."""

from collections.abc import Iterable

from policy.capacity.capacity import counted_dollars_per_hour
from policy.capacity.exact_sum import BILLION, billionths
from policy.state.lifecycle import is_billed_until_gone, is_hot
from policy.state.worker import Goal, Worker


class BudgetTracker:
    """A budget, and what the workers take of it. Money goes in and out as dollars per hour, and is kept in billionths."""

    def __init__(self, dollars_per_hour_max: float, workers: Iterable[Worker]) -> None:
        self._budget = billionths(dollars_per_hour_max)
        self._committed = 0
        self._running_out = 0
        for worker in workers:
            self._count(worker, 1)

    def exchange(self, before: Worker | None, after: Worker) -> None:
        """A worker has changed, or is new."""
        if before is not None:
            self._count(before, -1)
        self._count(after, 1)

    @property
    def left(self) -> float:
        """How many more $/h may be committed; negative: too much is."""
        return (self._budget - self._committed) / BILLION

    @property
    def left_after_drains(self) -> float:
        """The same once the workers that drain, stop or go have done so."""
        return (self._budget - self._committed + self._running_out) / BILLION

    def affords(self, dollars_per_hour: float, instead_of: float = 0.0) -> bool:
        """Whether so much may be committed more than now, or instead of what a worker takes now."""
        return billionths(dollars_per_hour) - billionths(instead_of) <= self._budget - self._committed

    def affords_after_drains(self, dollars_per_hour: float, instead_of: float = 0.0) -> bool:
        """The same once the workers that drain, stop or go have done so."""
        more = billionths(dollars_per_hour) - billionths(instead_of)
        return more <= self._budget - self._committed + self._running_out

    def committed_with(self, before: Worker | None, after: Worker) -> float:
        """What they cost once all that boots is running and the change is made, $/h."""
        return (self._committed + _more(before, after)) / BILLION

    def allows(self, before: Worker | None, after: Worker) -> bool:
        """Whether the change keeps to the budget, or at least takes no more than is taken already."""
        more = _more(before, after)
        return more <= 0 or self._committed + more <= self._budget

    def _count(self, worker: Worker, sign: int) -> None:
        self._committed += sign * _counted(worker)
        if _runs_out(worker):
            self._running_out += sign * (
                billionths(worker.dollars_per_hour) - billionths(worker.storage_dollars_per_hour)
            )


def _more(before: Worker | None, after: Worker) -> int:
    return _counted(after) - (0 if before is None else _counted(before))


def _counted(worker: Worker) -> int:
    return billionths(counted_dollars_per_hour(worker))


def _runs_out(worker: Worker) -> bool:
    if is_billed_until_gone(worker):
        return True
    return is_hot(worker) and worker.drain is not None and worker.drain.goal is not Goal.UPDATE
