"""How much of a perf that a worker claims is believed: traffic goes to where perf is, so a worker could draw it with a number.

A worker is held to the others of its kind, then to what is known of its kind, then to the other kinds beside it. Medians,
so that one that lies, up or down, moves nobody else's bound; with a single peer it cannot be told which of the two lies.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from policy.state.worker import Learned, Worker

OVER_KIND_MAX = 3.0
"""Machines of one kind differ by their clocks, cooling and hosts' CPUs: by tens of percent, hardly ever by two."""
OVER_FLEET_MAX = 50.0
"""A data centre's GPU does some ten or twenty times what the smallest rented one does on a model that both can hold."""
PEERS_MIN = 2
SAMPLES_MIN = 3


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most that is believed, and in whose light."""

    perf: float
    because: str


def ceiling(worker: Worker, fleet: Iterable[Worker], learned: Learned) -> Ceiling | None:
    """The most perf that the worker can be believed; None: there is nothing to hold it to."""
    beside = [
        each
        for each in fleet
        if each.workergroup_id == worker.workergroup_id
        and each.perf > 0
        and each.launch_id != worker.launch_id
    ]
    same = [each.perf for each in beside if each.kind == worker.kind]
    if len(same) >= PEERS_MIN:
        usual = median(same)
        return Ceiling(usual * OVER_KIND_MAX, f"the others of its kind do {usual:.4g}")
    record = learned.kind(worker.workergroup_id, worker.kind)
    if record is not None and record.samples >= SAMPLES_MIN and record.perf > 0:
        said = f"its kind did {record.perf:.4g} on average"
        return Ceiling(record.perf * OVER_KIND_MAX, said)
    if len(beside) >= PEERS_MIN:
        usual = median([each.perf for each in beside])
        return Ceiling(usual * OVER_FLEET_MAX, f"the others of its workergroup do {usual:.4g}")
    return None


def median(values: Sequence[float]) -> float:
    """The middle one; of two in the middle the larger, so that a small lie does not hold the honest down."""
    return sorted(values)[len(values) // 2]
