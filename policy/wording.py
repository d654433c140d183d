"""Formats workers, loads, prices and times for reasons and log lines."""

from policy.capacity.performance import LOAD_EPSILON, PerfEstimates
from policy.state.worker import Worker


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h`, `4 d`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"


def load(value: float) -> str:
    """`420 load/s`, `0.35 load/s`."""
    if abs(value) < LOAD_EPSILON:
        return "0 load/s"
    return f"{value:.0f} load/s" if value >= 100 else f"{value:.3g} load/s"


def price(dollars_per_hour: float) -> str:
    """`$0.31/h`."""
    return f"${dollars_per_hour:.2f}/h"


def machine(worker: Worker, perfs: PerfEstimates) -> str:
    """`4f1c (1x RTX 4090, 210 load/s, $0.31/h)`."""
    perf = perfs.worker(worker)
    capacity = load(perf) if perf > 0 else "perf not known yet"
    return f"{worker.launch_id[:6]} ({worker.kind}, {capacity}, {price(worker.dollars_per_hour)})"


def requests(worker: Worker) -> str:
    """The requests that a worker holds, e.g. `2 in flight and 1 tickets open`."""
    held = [f"{worker.in_flight} in flight"] if worker.in_flight else []
    held += [f"{worker.tickets_open} tickets open"] if worker.tickets_open else []
    return " and ".join(held) or (f"load {worker.load:.4g} held" if worker.load else "nothing held")
