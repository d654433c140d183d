"""Reasons, workers, prices and times as an operator reads them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from policy.amounts import amount
from policy.capacity.performance import LOAD_EPSILON
from policy.state.worker import Worker


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is ordered: a clause for people, and its numbers for programs."""

    text: str
    numbers: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text

    def also(self, clause: str, **numbers: float) -> "Reason":
        """The reason with one more clause."""
        return Reason(f"{self.text}; {clause}", {**self.numbers, **numbers})


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h`, `4 d`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"


def load(value: float) -> str:
    """`420 load/s`, `0.35 load/s`; a rounding error is `0 load/s`."""
    return f"{figure(value)} load/s"


def figure(value: float) -> str:
    """`420`, `0.35`; a rounding error is `0`."""
    if abs(value) < LOAD_EPSILON:
        return "0"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def price(dollars_per_hour: float) -> str:
    """`$0.31/h`."""
    return f"${dollars_per_hour:.2f}/h"


def count(number: int, noun: str) -> str:
    """`1 worker`, `3 workers`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def machine(worker: Worker) -> str:
    """`1x RTX 4090 ($0.31/h)`."""
    return f"{worker.kind} ({price(worker.dollars_per_hour)})"


def capacity(perf: float) -> str:
    """`210 load/s`; 0 is an unknown perf."""
    return load(perf) if perf > 0 else "an unknown perf"


def requests(worker: Worker) -> str:
    """The requests that a worker holds: `2 in flight and 1 open ticket`."""
    held = [f"{worker.in_flight} in flight"] if worker.in_flight else []
    held += [count(worker.tickets_open, "open ticket")] if worker.tickets_open else []
    return " and ".join(held) or (f"load {amount(worker.load)}" if worker.load else "no requests")
