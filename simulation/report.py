"""What `stokerd simulate` answers: what a config would cost on a trace, and which config to take instead."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from simulation.figures import Figures
from simulation.pictures import frontier_picture, picture
from simulation.pilot import PolicyPilot
from simulation.run import run
from simulation.settings import DEFAULT_WORLD, MachineKind, WorldSettings
from simulation.trace import Trace, read_trace
from stoker_wire.endpoint import EndpointConfig

Progress = Callable[[float, str], None]
"""Told the share of all runs that is done, 0 to 1, and what is being run."""

_PERF_UNIT = 100.0
_FRONTIER_UTIL = (1.0, 0.9, 0.8, 0.65, 0.5, 0.35)
_FLOORS = (0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A config and what it led to."""

    label: str
    config: EndpointConfig
    figures: Figures

    @property
    def dollars_per_hour(self) -> float:
        """Mean over the trace."""
        return self.figures.dollars / self.figures.hours


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The asked config, its neighbours on the frontier, and a suggestion."""

    trace: Trace
    asked: Tried
    frontier: tuple[Tried, ...] = ()
    """Cheapest first; each waits less than the one before."""
    suggestion: Tried | None = None
    because: str = ""
    pictures: tuple[Path, ...] = ()

    def table(self) -> str:
        """For people: one block for what was asked, one line per config of the frontier."""
        return (
            "\n".join([*_block(self.trace, self.asked), *self._frontier_lines(), *self._suggestion_lines()])
            + "\n"
        )

    def _frontier_lines(self) -> Iterator[str]:
        if not self.frontier:
            return
        yield ""
        yield f"{'config':<34}{'≤ 2 s':>9}{'≤ 10 s':>9}{'p99':>9}{'$/h':>9}"
        for tried in self.frontier:
            found = tried.figures
            yield (
                f"{tried.label:<34}{found.within_2:>9.2%}{found.within_10:>9.2%}{_seconds(found.wait_p99):>9}"
                f"{tried.dollars_per_hour:>9.3f}"
            )

    def _suggestion_lines(self) -> Iterator[str]:
        if self.because:
            yield ""
            yield self.because


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
    pictures: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Replay a trace through the policy under this config.

    `endpoint` picks one out of a request log. `perf` is what one worker does, load/s, at `dollars_per_hour`; without it, a worker that a quarter of the trace's peak
    hour keeps busy. A wanted `queue_seconds` (at the 99th percentile) or budget asks for the frontier and a suggestion.
    `pictures` is a folder.

    Raises:
        TraceFault: the file is not a trace.
        NoPictures: pictures are wanted and matplotlib is missing.
    """
    trace = read_trace(path, endpoint)
    perf = perf if perf is not None else max(_peak_hour(trace) / 4.0, 1e-6)
    # the world's reference worker does 100 load/s: works and config are brought to that scale
    scale = _PERF_UNIT / perf
    scaled = Trace(trace.name, trace.times, tuple(work * scale for work in trace.works), trace.seconds)
    kind = MachineKind(
        name="worker", perf=1.0, dollars_per_hour=dollars_per_hour, offers=max(600, config.max_workers)
    )
    world = settings.but(kinds=(kind,))
    asked_more = frontier or queue_seconds is not None or budget_dollars_per_hour is not None
    wanted = [("as asked", config), *(_neighbours(config, perf) if asked_more else ())]
    tried = [
        _try(label, each, scaled, world, scale, seed, _part(progress, number, len(wanted), label))
        for number, (label, each) in enumerate(wanted)
    ]
    line = _frontier(tried) if asked_more else ()
    suggestion, because = _suggest(tried, queue_seconds, budget_dollars_per_hour)
    drawn = _draw(tried[0], line, pictures) if pictures is not None else ()
    return Report(
        trace=trace, asked=tried[0], frontier=line, suggestion=suggestion, because=because, pictures=drawn
    )


def _try(
    label: str,
    config: EndpointConfig,
    trace: Trace,
    world: WorldSettings,
    scale: float,
    seed: int,
    progress: Callable[[float], None] | None,
) -> Tried:
    scaled = config.model_copy(
        update={"min_load": config.min_load * scale, "min_cold_load": config.min_cold_load * scale}
    )
    found = run(
        trace,
        PolicyPilot(scaled),
        world,
        seed=seed,
        max_queue_time=config.max_queue_time,
        target_queue_time=config.target_queue_time,
        progress=progress,
    )
    return Tried(label=label, config=config, figures=found)


def _neighbours(config: EndpointConfig, perf: float) -> Iterator[tuple[str, EndpointConfig]]:
    for floor in _FLOORS:
        for util in _FRONTIER_UTIL:
            changed = {"target_util": util, "min_load": floor * perf * 0.99}
            yield f"target_util {util:g}, {floor:g} always hot", config.model_copy(update=changed)


def _frontier(tried: list[Tried]) -> tuple[Tried, ...]:
    """Those that nothing beats in both cost and wait."""
    line: list[Tried] = []
    for each in sorted(tried, key=lambda one: (one.figures.dollars, one.figures.wait_p99)):
        if not line or each.figures.wait_p99 < line[-1].figures.wait_p99:
            line.append(each)
    return tuple(line)


def _suggest(
    tried: list[Tried], queue_seconds: float | None, budget: float | None
) -> tuple[Tried | None, str]:
    if queue_seconds is not None:
        quick = [each for each in tried if each.figures.wait_p99 <= queue_seconds]
        if quick:
            best = min(quick, key=lambda each: each.figures.dollars)
            return best, (
                f"99 % of requests begin within {queue_seconds:g} s for ${best.dollars_per_hour:.3f}/h with {_said(best)}"
            )
        best = min(tried, key=lambda each: each.figures.wait_p99)
        return best, (
            f"no tried config keeps the 99th percentile within {queue_seconds:g} s; the nearest is"
            f" {_seconds(best.figures.wait_p99)} for ${best.dollars_per_hour:.3f}/h with {_said(best)}"
        )
    if budget is not None:
        cheap = [each for each in tried if each.dollars_per_hour <= budget]
        if cheap:
            best = min(cheap, key=lambda each: (each.figures.wait_p99, each.figures.dollars))
            return best, (
                f"${budget:g}/h buys a 99th percentile of {_seconds(best.figures.wait_p99)}"
                f" (${best.dollars_per_hour:.3f}/h) with {_said(best)}"
            )
        best = min(tried, key=lambda each: each.figures.dollars)
        return best, f"nothing tried costs less than ${best.dollars_per_hour:.3f}/h, with {_said(best)}"
    return None, ""


def _said(tried: Tried) -> str:
    config = tried.config
    return f"target_util {config.target_util:g}, min_load {config.min_load:.4g}, min_workers {config.min_workers}"


def _block(trace: Trace, tried: Tried) -> Iterator[str]:
    found = tried.figures
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


def _part(progress: Progress | None, number: int, count: int, label: str) -> Callable[[float], None] | None:
    if progress is None:
        return None
    return lambda share: progress((number + share) / count, label)


def _draw(asked: Tried, line: tuple[Tried, ...], folder: Path) -> tuple[Path, ...]:
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [folder / "run.png"]
    picture(asked.figures, drawn[0])
    if line:
        drawn.append(folder / "frontier.png")
        points = [
            (each.label, each.figures.wait_p99, each.dollars_per_hour)
            for each in line
            if not math.isinf(each.figures.wait_p99)
        ]
        frontier_picture(points, drawn[1])
    return tuple(drawn)
