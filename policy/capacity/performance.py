"""How much load per second a worker can process, measured or estimated."""

from collections.abc import Iterable
from dataclasses import dataclass

from policy.state.worker import MachineStats, Worker

LOAD_EPSILON = 1e-3
"""Loads below this are rounding errors of sums, not requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PerfEstimates:
    """Expected perf of workers, from every measurement in the endpoint."""

    learned: MachineStats
    mean: float
    """Mean of all known perfs, load/s; 0: none is known."""

    @classmethod
    def of(cls, workers: Iterable[Worker], learned: MachineStats) -> "PerfEstimates":
        """Estimates from the measured perfs of machine kinds, or of the workers if no kind was measured."""
        known = [record.perf for record in learned.kinds if record.perf > 0]
        known = known or [worker.perf for worker in workers if worker.perf > 0]
        return cls(learned=learned, mean=sum(known) / len(known) if known else 0.0)

    def kind(self, workergroup_id: int, kind: str) -> float:
        """Measured perf of a machine kind, load/s; 0: not measured."""
        record = self.learned.kind(workergroup_id, kind)
        return record.perf if record is not None else 0.0

    def worker(self, worker: Worker) -> float:
        """Perf of a worker, load/s; 0: unknown.

        Sources in this order: its own measurement, its machine kind, its own estimate, the estimate at recruiting, the
        mean.
        """
        measured = 0.0 if worker.provisional else worker.perf
        return (
            measured
            or self.kind(worker.workergroup_id, worker.kind)
            or worker.perf
            or worker.perf_estimate
            or self.mean
        )
