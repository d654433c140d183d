"""The budget of an endpoint, and how much of it the workers take. Updated per worker, which keeps planning linear."""

from collections.abc import Iterable

from policy.capacity.exact_sum import BILLION, billionths
from policy.state.lifecycle import counts_in_full, is_billed_until_gone, is_hot
from policy.state.worker import Goal, Worker
from stoker_wire.states import WorkerState as S


def counted_dollars_per_hour(worker: Worker) -> float:
    """The share of a worker in the budget. A broken one counts in full while its machine runs, then with its disk."""
    if counts_in_full(worker):
        return worker.dollars_per_hour
    return worker.storage_dollars_per_hour if worker.state is S.ERROR else worker.burn_dollars_per_hour


class BudgetTracker:
    """The committed part of a budget. Amounts are dollars per hour, summed in billionths."""

    def __init__(self, budget_billionths: int) -> None:
        self._budget = budget_billionths
        self._committed = 0
        self._released_by_drains = 0

    @classmethod
    def of(cls, dollars_per_hour_max: float, workers: Iterable[Worker]) -> "BudgetTracker":
        """The tracker of a budget that these workers use."""
        tracker = cls(billionths(dollars_per_hour_max))
        for worker in workers:
            tracker._count(worker, 1)
        return tracker

    def exchange(self, before: Worker | None, after: Worker) -> None:
        """Account for a changed worker, or a new one if `before` is None."""
        if before is not None:
            self._count(before, -1)
        self._count(after, 1)

    @property
    def left(self) -> float:
        """$/h that may still be committed; negative: the budget is exceeded."""
        return (self._budget - self._committed) / BILLION

    @property
    def left_after_drains(self) -> float:
        """`left` after all workers that drain, stop or are released have done so."""
        return (self._budget - self._committed + self._released_by_drains) / BILLION

    def affords(
        self, dollars_per_hour: float, instead_of: float = 0.0, *, after_drains: bool = False
    ) -> bool:
        """Whether the budget has room for this amount, now or after all drains, where it replaces `instead_of`."""
        left = self._budget - self._committed + (self._released_by_drains if after_drains else 0)
        return billionths(dollars_per_hour) - billionths(instead_of) <= left

    def committed_with(self, before: Worker | None, after: Worker) -> float:
        """The committed $/h if the change is made."""
        return (self._committed + _increase(before, after)) / BILLION

    def allows(self, before: Worker | None, after: Worker) -> bool:
        """Whether the change keeps to the budget, or at least does not increase the committed amount."""
        increase = _increase(before, after)
        return increase <= 0 or self._committed + increase <= self._budget

    def _count(self, worker: Worker, sign: int) -> None:
        self._committed += sign * _counted(worker)
        if _is_released_by_drain(worker):
            self._released_by_drains += sign * (
                billionths(worker.dollars_per_hour) - billionths(worker.storage_dollars_per_hour)
            )


def _increase(before: Worker | None, after: Worker) -> int:
    return _counted(after) - (0 if before is None else _counted(before))


def _counted(worker: Worker) -> int:
    return billionths(counted_dollars_per_hour(worker))


def _is_released_by_drain(worker: Worker) -> bool:
    if is_billed_until_gone(worker):
        return True
    return is_hot(worker) and worker.drain is not None and worker.drain.goal is not Goal.UPDATE
