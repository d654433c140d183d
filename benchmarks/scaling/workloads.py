"""The workloads: parts of the shared traces, and seeded traffic. The second halves are reported."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from benchmarks.scaling import generators
from simulation.market import PERF_UNIT
from simulation.trace import Trace, read_trace

TRACES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "traces"
HOUR = 3600.0
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Workload:
    """A trace scaled to keep `workers` reference workers busy, and the start of its scored part."""

    name: str
    workers: int
    trace: Trace = field(repr=False)
    score_from: float
    diurnal: bool = False

    @property
    def scored(self) -> tuple[list[float], list[float]]:
        """Scored arrivals, and their service times on a reference worker, seconds."""
        first = next((n for n, at in enumerate(self.trace.times) if at >= self.score_from), len(self.trace))
        return list(self.trace.times[first:]), [work / PERF_UNIT for work in self.trace.works[first:]]

    @property
    def service_seconds(self) -> float:
        """Mean time that a request keeps a worker busy."""
        services = self.scored[1]
        return sum(services) / max(len(services), 1)

    @property
    def peak_workers(self) -> float:
        """Workers that the busiest minute of the whole run keeps busy; an earlier queue is scored, too."""
        minutes: dict[int, float] = {}
        for at, work in zip(self.trace.times, self.trace.works, strict=True):
            minutes[int(at // 60.0)] = minutes.get(int(at // 60.0), 0.0) + work / PERF_UNIT / 60.0
        return max(minutes.values(), default=0.0)


PARTS: dict[str, tuple[float, float, float]] = {
    "servegen_diurnal": (3.5 * DAY, DAY, 2 * DAY),
    "servegen_microburst": (3.5 * DAY, 4 * HOUR, DAY),
    "servegen_onoff": (3.2 * DAY, DAY, 3 * DAY),
    "servegen_steady": (1.75 * DAY, 4 * HOUR, 12 * HOUR),
    "azure_llm_2023_code": (1718.0, 1718.0, 1718.0),
    "azure_llm_2023_conv": (1750.0, 1750.0, 1750.0),
    "mooncake_conversation": (1768.0, 1768.0, 1768.0),
}
"""Start of the reported part, length of the unscored lead-in, and length. Earlier parts were used for tuning."""

FIRST: dict[str, tuple[float, float, float]] = {
    "servegen_diurnal": (1.5 * DAY, DAY, 2 * DAY),
    "servegen_microburst": (DAY, 4 * HOUR, DAY),
    "servegen_onoff": (0.2 * DAY, DAY, 3 * DAY),
    "servegen_steady": (0.75 * DAY, 4 * HOUR, 12 * HOUR),
    "azure_llm_2023_code": (859.0, 859.0, 859.0),
    "azure_llm_2023_conv": (875.0, 875.0, 875.0),
    "mooncake_conversation": (884.0, 884.0, 884.0),
}
"""The same for the tuning part."""

SPARSE_SECONDS = 10.0
QUIET_SECONDS = 600.0
RISE_SECONDS = 600.0
TENANT_CVS = (1.0, 3.0, 6.0)

SHORT_AT_LOAD = 8
"""From this load on a part of a week is cut to a quarter: ten times the workers make ten times the plans."""

QUICK: dict[str, tuple[float, float, float]] = {
    "servegen_diurnal": (3.5 * DAY, 4 * HOUR, 12 * HOUR),
    "servegen_microburst": (3.5 * DAY, 3 * HOUR, 6 * HOUR),
    "azure_llm_2023_code": (1718.0, 1718.0, 1718.0),
    "azure_llm_2023_conv": (1750.0, 1750.0, 1750.0),
    "mooncake_conversation": (1768.0, 1768.0, 1768.0),
}


def workloads(
    loads: tuple[int, ...], *, quick: bool = False, generated: bool = True, tuning: bool = False
) -> list[Workload]:
    """Every trace at every mean load, its second part; and seeded traffic, at one load each in turn.

    `tuning`: the first part instead, on which constants may be chosen.
    """
    parts = FIRST if tuning else QUICK if quick else PARTS
    found = {name: part for name, part in parts.items() if (TRACES / f"{name}.csv.gz").exists()}
    made = [_part(name, *part, load) for name, part in found.items() for load in loads]
    if not generated and made:
        return made
    traffic = _generated(quick)
    if made:
        return made + [_whole(trace, loads[n % len(loads)]) for n, trace in enumerate(traffic)]
    return [_whole(trace, load) for trace in traffic for load in loads]


def _part(name: str, begin: float, before: float, seconds: float, workers: int) -> Workload:
    full = _read(name)
    before = min(before, begin)
    if workers >= SHORT_AT_LOAD and seconds > HOUR and name != "servegen_onoff":
        before, seconds = min(before, 4 * HOUR), seconds / 4
    scored = full.part(begin, begin + seconds)
    factor = workers * PERF_UNIT / scored.mean_load
    played = full.part(begin - before, begin + seconds)
    scaled = Trace(name, played.times, tuple(work * factor for work in played.works), played.seconds)
    return Workload(name, workers, led_in(scaled), QUIET_SECONDS + before, diurnal="diurnal" in name)


def led_in(trace: Trace) -> Trace:
    """The trace after some quiet, and rising to its level over its first minutes.

    A scaler that meets full traffic without workers sees a queue of minutes. Some then rent a hundred times what they
    need, and would be scored with it.
    """
    rows = [
        (number, at) for number, at in enumerate(trace.times) if number * 0.618034 % 1.0 < at / RISE_SECONDS
    ]
    return Trace(
        trace.name,
        tuple(at + QUIET_SECONDS for _, at in rows),
        tuple(trace.works[number] for number, _ in rows),
        trace.seconds + QUIET_SECONDS,
    )


def _whole(trace: Trace, workers: int) -> Workload:
    if trace.name == "sparse":
        # scaling to a mean load would make these few requests an hour long, so each keeps a worker busy for ten seconds
        factor = SPARSE_SECONDS * PERF_UNIT * len(trace) / trace.work
        works = tuple(work * factor for work in trace.works)
        few = Trace(trace.name, trace.times, works, trace.seconds)
        return Workload(trace.name, 0, led_in(few), QUIET_SECONDS + HOUR)
    scaled = trace.scaled(mean_load=workers * PERF_UNIT)
    before = QUIET_SECONDS + min(HOUR, trace.seconds / 4)
    if trace.name.startswith("tenant"):
        before = QUIET_SECONDS + trace.seconds - 2 * DAY  # Sunday and Monday, after three days to learn from
    return Workload(trace.name, workers, led_in(scaled), before, diurnal="diurnal" in trace.name)


@cache
def _read(name: str) -> Trace:
    return read_trace(TRACES / f"{name}.csv.gz")


@cache
def _generated(quick: bool) -> tuple[Trace, ...]:
    count = 4_000 if quick else 40_000
    return (
        generators.diurnal(requests=count),
        generators.bursty(requests=count),
        generators.flash_crowd(requests=count),
        generators.on_off(requests=count),
        generators.sparse(requests=count // 100),
        *(generators.tenant(requests=count * 3 // 2, cv=cv) for cv in TENANT_CVS),
    )
