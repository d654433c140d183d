"""The report of `stokerd simulate`: the cost of a config on a trace, and a suggested config."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from simulation.controller_host import SimulatedController
from simulation.market import PERF_UNIT
from simulation.run import run
from simulation.scoring import RunScore
from simulation.settings import DEFAULT_WORLD, MachineKind, WorldSettings
from simulation.trace import Trace, read_trace
from stoker_wire.endpoint import EndpointConfig

Progress = Callable[[float, str], None]
"""Called with the finished share of all runs, 0 to 1, and the name of the current run."""

_WARM_UP_SECONDS = 3600.0
_WORKERS_MAX = 10_000
"""Most workers of an endpoint: a trace that needs more uses other units than the perf."""
_FRONTIER_UTIL = (1.0, 0.9, 0.8, 0.65, 0.5, 0.35)
_FLOORS = (0.0, 1.0)


class Unfit(ValueError):
    """The trace, the perf and the wishes do not fit together; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A config and its results."""

    label: str
    config: EndpointConfig
    score: RunScore

    @property
    def dollars_per_hour(self) -> float:
        """Mean over the trace."""
        return self.score.dollars / self.score.hours


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The asked config, its neighbours on the frontier, and a suggestion."""

    trace: Trace
    asked: Tried
    frontier: tuple[Tried, ...] = ()
    """Cheapest first; each waits less than the one before."""
    suggestion: Tried | None = None
    because: str = ""
    met: bool = True
    """Whether a tried config meets the wanted queue time or budget."""
    perf: float = 0.0
    warm_up_seconds: float = 0.0
    endpoint: str = ""

    def table(self) -> str:
        """Text for users: one block for the given config, one line per config of the frontier."""
        lines = [
            *_block(self.trace, self.asked),
            *self._notes(),
            *self._frontier_lines(),
            *self._suggestion_lines(),
        ]
        return "\n".join(lines) + "\n"

    def _notes(self) -> Iterator[str]:
        if self.warm_up_seconds:
            yield (
                f"{'':<34}the first {self.warm_up_seconds / 60:.0f} min were played before it, uncounted: the endpoint has"
                " been running already"
            )
        most, mean = self.asked.config.max_workers, self.trace.mean_load / self.perf if self.perf else 0.0
        if mean >= most:
            yield f"{'':<34}max_workers {most} cannot carry it: the mean load alone keeps {mean:.1f} workers busy"

    def _frontier_lines(self) -> Iterator[str]:
        if not self.frontier:
            return
        yield ""
        yield f"{'config':<34}{'≤ 2 s':>9}{'≤ 10 s':>9}{'p99':>9}{'$/h':>9}"
        for tried in self.frontier:
            found = tried.score
            yield (
                f"{tried.label:<34}{found.within_2:>9.2%}{found.within_10:>9.2%}{_seconds(found.wait_p99):>9}"
                f"{tried.dollars_per_hour:>9.3f}"
            )

    def _suggestion_lines(self) -> Iterator[str]:
        if self.because:
            yield ""
            yield self.because
        if self.suggestion is not None:
            words = options(self.asked.config, self.suggestion.config)
            name = self.endpoint or "ENDPOINT"
            if words:
                yield f"  stoker endpoints update {name} {words}"
                yield f"  stoker advise {name} {words}    # first see what it would do to the live endpoint"
            else:
                yield "  it is the config as asked"


def simulate_trace(
    path: Path,
    config: EndpointConfig,
    *,
    endpoint: str | None = None,
    perf: float | None = None,
    dollars_per_hour: float = 0.42,
    settings: WorldSettings = DEFAULT_WORLD,
    queue_seconds: float | None = None,
    budget_dollars_per_hour: float | None = None,
    frontier: bool = False,
    cold_start: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Replay a trace through the policy under this config.

    The trace's first hour is played before it, uncounted, unless `cold_start` is set.

    `endpoint` selects one endpoint of a request log. `perf` is the load/s of one worker at `dollars_per_hour`; the
    default is a quarter of the trace's peak hour. A wanted `queue_seconds` (at the 99th percentile) or budget asks
    for the frontier and a suggestion.

    Raises:
        TraceFault: the file is not a trace.
        Unfit: a figure is absurd, or the trace was measured in other units than the perf.
    """
    _check(perf, dollars_per_hour, queue_seconds, budget_dollars_per_hour)
    trace = read_trace(path, endpoint)
    _check_trace(trace, perf)
    warm_up = 0.0 if cold_start else min(_WARM_UP_SECONDS, trace.seconds)
    perf = perf if perf is not None else max(_peak_hour(trace) / 4.0, 1e-6)
    # works and config are scaled to the world's reference worker
    scale = PERF_UNIT / perf
    scaled = Trace(trace.name, trace.times, tuple(work * scale for work in trace.works), trace.seconds)
    kind = MachineKind(
        name="worker", perf=1.0, dollars_per_hour=dollars_per_hour, offers=max(600, config.max_workers)
    )
    world = settings.but(kinds=(kind,))
    asked_more = frontier or queue_seconds is not None or budget_dollars_per_hour is not None
    wanted = [("as asked", config), *(_neighbours(config, perf) if asked_more else ())]

    def played(number: int, label: str, each: EndpointConfig) -> Tried:
        given = {"min_load": each.min_load * scale, "min_cold_load": each.min_cold_load * scale}
        controller = SimulatedController(each.model_copy(update=given))

        def tell(share: float) -> None:
            if progress is not None:
                progress((number + share) / len(wanted), label)

        found = run(scaled, controller, world, config=each, seed=seed, warmup_seconds=warm_up, progress=tell)
        return Tried(label=label, config=each, score=found)

    tried = [played(number, label, each) for number, (label, each) in enumerate(wanted)]
    line = _frontier(tried) if asked_more else ()
    suggestion, because, met = suggest(tried, queue_seconds, budget_dollars_per_hour)
    return Report(
        trace=trace,
        asked=tried[0],
        frontier=line,
        suggestion=suggestion,
        because=because,
        met=met,
        perf=perf,
        warm_up_seconds=warm_up,
        endpoint=endpoint or "",
    )


def options(before: EndpointConfig, after: EndpointConfig) -> str:
    """The difference of two configs as options of `stoker endpoints update`."""
    had, has = before.model_dump(mode="json"), after.model_dump(mode="json")
    names = {
        "dollars_per_hour_max": "budget",
        "endpoint_state": "state",
        "drain_seconds_max": "drain-seconds",
    }
    return " ".join(
        f"--{names.get(name, name).replace('_', '-')} {_digits(value)}"
        for name, value in has.items()
        if value != had[name] and value is not None
    )


def _digits(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _check(perf: float | None, price: float, queue_seconds: float | None, budget: float | None) -> None:
    figures = {"perf": perf, "price": price, "queue": queue_seconds, "budget": budget}
    for name, value in figures.items():
        if value is not None and not (0 < value < 1e12):
            raise Unfit(f"{name}: expected a number above 0, got {value:g}")


def _check_trace(trace: Trace, perf: float | None) -> None:
    if trace.seconds < 1:
        raise Unfit(
            f"{trace.name}: all {len(trace)} requests come within a second; expected a recording of minutes or more"
        )
    if trace.work <= 0:
        raise Unfit(f"{trace.name}: no request has any work; there is nothing to scale for")
    if perf is not None and trace.mean_load / perf > _WORKERS_MAX:
        raise Unfit(
            f"perf: at {perf:g} load/s a worker, the mean load of {trace.mean_load:.4g} load/s needs"
            f" {trace.mean_load / perf:,.0f} workers; perf has to be in the units of the trace's work, per second"
        )


def _neighbours(config: EndpointConfig, perf: float) -> Iterator[tuple[str, EndpointConfig]]:
    for floor in _FLOORS:
        for util in _FRONTIER_UTIL:
            changed = {"target_util": util, "min_load": floor * perf * 0.99}
            yield f"target_util {util:g}, {floor:g} always hot", config.model_copy(update=changed)


def _frontier(tried: list[Tried]) -> tuple[Tried, ...]:
    """The configs that no other config dominates in cost and wait."""
    line: list[Tried] = []
    for each in sorted(tried, key=lambda one: (one.score.dollars, one.score.wait_p99)):
        if not line or each.score.wait_p99 < line[-1].score.wait_p99:
            line.append(each)
    return tuple(line)


def suggest(
    tried: list[Tried], queue_seconds: float | None, budget: float | None
) -> tuple[Tried | None, str, bool]:
    """The cheapest fast enough config, or the fastest within the budget: (suggestion, reason, whether the wishes are
    met)."""
    if queue_seconds is None and budget is None:
        return None, "", True
    quick = [each for each in tried if queue_seconds is None or each.score.wait_p99 <= queue_seconds]
    fitting = [each for each in quick if budget is None or each.dollars_per_hour <= budget]
    cheapest = min(fitting or quick or tried, key=lambda each: each.score.dollars)
    quickest = min(fitting or tried, key=lambda each: (each.score.wait_p99, each.score.dollars))
    best = cheapest if (quick if queue_seconds is not None else not fitting) else quickest
    cost, wait = _price(best), _seconds(best.score.wait_p99)
    if queue_seconds is not None and fitting:
        because = f"99 % of requests begin within {queue_seconds:g} s for {cost}"
    elif queue_seconds is not None and quick:
        because = (
            f"no tried config keeps the 99th percentile within {queue_seconds:g} s for at most ${budget:g}/h;"
            f" the cheapest that is so quick costs {cost}"
        )
    elif queue_seconds is not None:
        because = f"no tried config keeps the 99th percentile within {queue_seconds:g} s; the nearest is {wait} for {cost}"
    elif fitting:
        because = f"${budget:g}/h buys a 99th percentile of {wait} ({cost})"
    else:
        because = f"nothing tried costs at most ${budget:g}/h; the least is {cost}"
    return best, f"{because}, with {best.label}:", bool(fitting)


def _price(tried: Tried) -> str:
    return f"${tried.dollars_per_hour:.3f}/h"


def _block(trace: Trace, tried: Tried) -> Iterator[str]:
    found = tried.score
    gpu, money = found.gpu_hours_by_state, found.dollars_by_state
    yield f"{trace.name}: {found.requests:,} requests in {found.hours:.1f} h, mean {trace.mean_load:.4g} load/s"
    yield f"{'waited at most 2 s / 10 s':<34}{found.within_2:.2%} / {found.within_10:.2%}"
    waits = " / ".join(_seconds(each) for each in (found.wait_p50, found.wait_p99, found.wait_p999))
    yield f"{'wait p50 / p99 / p99.9':<34}{waits}"
    yield f"{'dollars (per hour)':<34}${found.dollars:.2f} (${tried.dollars_per_hour:.3f})"
    for name in ("loading", "starting", "ready", "storage"):
        hours = f"{gpu[name]:.1f} GPU-hours, " if name in gpu else ""
        yield f"{'  ' + name:<34}{hours}${money[name]:.2f}"
    yield f"{'hot time that was busy':<34}{found.utilisation:.0%}"
    yield f"{'too much / too little capacity':<34}{found.over_hours:.1f} worker-hours idle / {found.under_hours:.1f} request-hours waiting"
    yield (
        f"{'starts / stops / creates per hour':<34}"
        f"{found.starts_per_hour:.1f} / {found.stops_per_hour:.1f} / {found.creates_per_hour:.1f}"
    )


def _seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.1f} s"


def _peak_hour(trace: Trace) -> float:
    """Load/s of the busiest hour."""
    hours: dict[int, float] = {}
    for at, work in zip(trace.times, trace.works, strict=True):
        hours[int(at // 3600.0)] = hours.get(int(at // 3600.0), 0.0) + work
    return max(hours.values(), default=0.0) / min(3600.0, max(trace.seconds, 1.0))
