"""Upper bounds for the perf that a worker reports: perf attracts traffic, so a false report would attract all of it.

The bound comes from other workers of the same kind, else from the kind's record, else from the other kinds in the
workergroup. Medians, so that one false report does not move the bound of others. Two workers with one peer each give
no bound: either could be wrong.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from policy.amounts import amount
from policy.state.worker import MachineStats, Worker
from policy.tuning import DEFAULT_TUNING


@dataclass(frozen=True, slots=True)
class PerfBound:
    """The highest accepted perf, and the comparison that it comes from."""

    perf: float
    reason: str


def perf_bound(worker: Worker, fleet: Iterable[Worker], learned: MachineStats) -> PerfBound | None:
    """The highest accepted perf of the worker; None: there is nothing to compare with."""
    tuning = DEFAULT_TUNING
    same_kind, others = list[float](), list[float]()
    for each in fleet:
        if (
            each.workergroup_id == worker.workergroup_id
            and each.perf > 0
            and not each.provisional
            and each.launch_id != worker.launch_id
        ):
            (same_kind if each.kind == worker.kind else others).append(each.perf)
    if len(same_kind) >= tuning.perf_bound_peers_min:
        usual = median(same_kind)
        return PerfBound(
            usual * tuning.perf_over_kind_max, f"other workers of its kind reach {amount(usual)}"
        )
    record = learned.kind(worker.workergroup_id, worker.kind)
    if record is not None and record.samples >= tuning.perf_bound_samples_min and record.perf > 0:
        reason = f"its kind reached {amount(record.perf)} on average"
        return PerfBound(record.perf * tuning.perf_over_kind_max, reason)
    if len(same_kind) + len(others) >= tuning.perf_bound_peers_min:
        usual = median([*same_kind, *others])
        reason = f"other workers of its workergroup reach {amount(usual)}"
        return PerfBound(usual * tuning.perf_over_workergroup_max, reason)
    return None


def median(values: Sequence[float]) -> float:
    """The median; of two middle values the larger, so that a false low report does not lower the bound."""
    return sorted(values)[len(values) // 2]
