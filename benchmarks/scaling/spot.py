"""Interruptible machines beside on-demand ones in one endpoint: savings and cost of losses.

Interruptible machines cost less and are outbid: one by one at a rate, and at times all at once. On-demand machines are
rented when no interruptible one is offered.
"""

import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.scaling.generators import diurnal
from benchmarks.scaling.scalers import FIXED
from benchmarks.scaling.workloads import led_in
from simulation.controller_host import SimulatedController
from simulation.market import PERF_UNIT
from simulation.run import run
from simulation.scoring import RunScore
from simulation.settings import DEFAULT_WORLD, MachineKind, calm

HOURS = 16.0
_SCORED_FROM = 4 * 3600.0
_WORKERS = 4

ON_DEMAND = MachineKind(name="on demand", perf=1.0, dollars_per_hour=0.42)
INTERRUPTIBLE = MachineKind(name="interruptible", perf=1.0, dollars_per_hour=0.21)


@dataclass(frozen=True, slots=True)
class Outbids:
    """How interruptible machines are lost."""

    per_hour: float
    """Of each machine, on its own."""
    all_every_hours: float = 0.0
    """Mean time between the moments at which all are lost and none is offered for a while; 0: never."""

    def __str__(self) -> str:
        together = f", all every {self.all_every_hours:g} h" if self.all_every_hours else ""
        return f"{self.per_hour:g} per hour{together}"

    def kind(self, seed: int) -> MachineKind:
        """The interruptible machines with a trace of their outbids."""
        chance, at, taken = random.Random(f"{seed} outbids"), 0.0, []
        while self.all_every_hours:
            at += chance.expovariate(1.0 / (self.all_every_hours * 3600.0))
            if at >= HOURS * 3600.0:
                break
            taken.append((at, at + chance.uniform(600.0, 2400.0)))
        return MachineKind(
            name=INTERRUPTIBLE.name,
            perf=INTERRUPTIBLE.perf,
            dollars_per_hour=INTERRUPTIBLE.dollars_per_hour,
            outbid_per_hour=self.per_hour,
            taken=tuple(taken),
        )


TRACES = (Outbids(0.02), Outbids(0.5), Outbids(2.0), Outbids(0.1, all_every_hours=4.0))
HEADING = f"{'outbids':<30}{'machines':<18}{'≤ 10 s':>8}{'p99 s':>8}{'p99.9 s':>9}{'$':>8}{'lost':>6}"


@dataclass(frozen=True, slots=True)
class Line:
    """The medians over the seeds."""

    outbids: str
    machines: str
    within_10: float
    wait_p99: float
    wait_p999: float
    dollars: float
    lost: float

    def __str__(self) -> str:
        return (
            f"{self.outbids:<30}{self.machines:<18}{self.within_10:>8.4f}{self.wait_p99:>8.1f}{self.wait_p999:>9.1f}"
            f"{self.dollars:>8.2f}{self.lost:>6.0f}"
        )


def table(seeds: Sequence[int], outbids: Sequence[Outbids] = TRACES) -> Iterator[Line]:
    """On-demand machines alone, then for each trace of outbids interruptible ones alone and both."""
    yield _line("none", "on demand", [_played((ON_DEMAND,), seed) for seed in seeds])
    for each in outbids:
        yield _line(str(each), "interruptible", [_played((each.kind(seed),), seed) for seed in seeds])
        yield _line(str(each), "both", [_played((ON_DEMAND, each.kind(seed)), seed) for seed in seeds])


def _played(kinds: tuple[MachineKind, ...], seed: int) -> RunScore:
    trace = diurnal(requests=int(HOURS * 900), days=HOURS / 24.0, depth=0.6, seed=seed)
    return run(
        led_in(trace.scaled(mean_load=_WORKERS * PERF_UNIT)),
        SimulatedController(FIXED),
        calm(DEFAULT_WORLD).but(kinds=kinds),
        seed=seed,
        config=FIXED,
        score_from=_SCORED_FROM,
    )


def _line(outbids: str, machines: str, runs: Sequence[RunScore]) -> Line:
    return Line(
        outbids,
        machines,
        statistics.median(each.within_10 for each in runs),
        statistics.median(each.wait_p99 for each in runs),
        statistics.median(each.wait_p999 for each in runs),
        statistics.median(each.dollars for each in runs),
        statistics.median(each.lost_requests for each in runs),
    )
