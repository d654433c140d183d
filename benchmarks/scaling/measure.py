"""One run of one scaler on one workload, and its results."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.scaling.bounds.oracle import Prices, Schedule
from benchmarks.scaling.bounds.staffing import cheapest_schedule
from benchmarks.scaling.pool import in_order
from benchmarks.scaling.scalers import FIXED, Setting
from benchmarks.scaling.workloads import Workload
from simulation.run import run
from simulation.scoring import RunScore
from simulation.settings import WorldSettings

ATTAIN = 0.99
Row = dict[str, Any]

HEADING = (
    f"{'workload':<22}{'load':>4}  {'scaler':<24}{'≤ 2 s':>7}{'≤ 10 s':>8}{'p50 s':>7}{'p99 s':>8}{'p99.9 s':>9}{'mean s':>8}{'$':>8}"
    f"{'cost÷O':>8}{'util':>6}{'idle h':>8}{'wait h':>8}{'start/h':>8}{'stop/h':>8}{'creat/h':>8}"
)


def one(workload: Workload, setting: Setting, world: WorldSettings, seed: int = 1) -> RunScore:
    """One run, scored."""
    return run(
        workload.trace,
        setting.make(workload),
        world,
        seed=seed,
        score_from=workload.score_from,
        config=FIXED.model_copy(update={"target_queue_time": setting.line_seconds}),
    )


_ORACLES: dict[tuple[str, int, bool], Schedule] = {}


def oracle(workload: Workload, world: WorldSettings) -> Schedule:
    """The clairvoyant's schedule for the scored part."""
    key = (workload.name, workload.workers, world.cold_pool)
    if key not in _ORACLES:
        _ORACLES[key] = cheapest_schedule(*workload.scored, Prices.of(world))
    return _ORACLES[key]


def prepare(chosen: Sequence[Workload], world: WorldSettings, processes: int) -> None:
    """Computes the clairvoyant schedules before the runs go to processes, which could not share them."""
    missing = [each for each in chosen if (each.name, each.workers, world.cold_pool) not in _ORACLES]
    jobs = [lambda each=each: oracle(each, world) for each in missing]  # type: ignore[misc]
    for each, made in zip(missing, in_order(jobs, processes), strict=True):
        _ORACLES[each.name, each.workers, world.cold_pool] = made


def row(workload: Workload, setting: Setting, world: WorldSettings, seeds: Sequence[int]) -> Row:
    """The results of the runs: each figure is the median over the seeds."""
    began = time.process_time()
    runs = [one(workload, setting, world, seed) for seed in seeds]
    prices = Prices.of(world)
    cheapest = prices.dollars(oracle(workload, world).seconds)

    def median(of: Callable[[RunScore], float]) -> float:
        return statistics.median(of(figures) for figures in runs)

    return {
        "workload": workload.name, "workers": workload.workers, "diurnal": workload.diurnal,
        "scaler": setting.scaler, "setting": setting.label, "seeds": len(runs),
        "requests": runs[0].requests,
        "within_2": median(lambda f: f.within_2), "within_10": median(lambda f: f.within_10),
        "p50": median(lambda f: f.wait_p50), "p99": median(lambda f: f.wait_p99), "p999": median(lambda f: f.wait_p999),
        "mean": median(lambda f: f.wait_mean),
        "per_1000": median(lambda f: 1000.0 * f.dollars / max(f.requests, 1)),
        "within_10_by_seed": [f.within_10 for f in runs],
        "per_1000_by_seed": [1000.0 * f.dollars / max(f.requests, 1) for f in runs],
        "dollars": median(lambda f: f.dollars), "ratio": median(lambda f: f.dollars) / cheapest,
        "dollars_by_state": {
            name: median(lambda f, name=name: f.dollars_by_state[name])  # type: ignore[misc]
            for name in runs[0].dollars_by_state
        },
        "gpu_hours_by_state": {
            name: median(lambda f, name=name: f.gpu_hours_by_state[name])  # type: ignore[misc]
            for name in runs[0].gpu_hours_by_state
        },
        "utilisation": median(lambda f: f.utilisation),
        "over_hours": median(lambda f: f.over_hours), "under_hours": median(lambda f: f.under_hours),
        "starts_per_hour": median(lambda f: f.starts_per_hour), "stops_per_hour": median(lambda f: f.stops_per_hour),
        "creates_per_hour": median(lambda f: f.creates_per_hour),
        "oracle_dollars": cheapest, "cpu_seconds": time.process_time() - began,
    }  # fmt: skip


def show(made: Row) -> None:
    """One line of the long table."""
    print(
        f"{made['workload']:<22}{made['workers']:>4}  {made['scaler']:<24}"
        f"{made['within_2']:>7.4f}{made['within_10']:>8.4f}{made['p50']:>7.1f}{made['p99']:>8.1f}{made['p999']:>9.1f}{made['mean']:>8.2f}"
        f"{made['dollars']:>8.2f}{made['ratio']:>8.2f}{made['utilisation']:>6.2f}{made['over_hours']:>8.1f}"
        f"{made['under_hours']:>8.1f}{made['starts_per_hour']:>8.1f}{made['stops_per_hour']:>8.1f}{made['creates_per_hour']:>8.1f}",
        flush=True,
    )


def by_state(rows: Iterable[Row]) -> None:
    """A scaler's dollars and GPU-hours by use, over all workloads."""
    rows = list(rows)
    print(
        "\nscaler                     GPU-hours loading  starting     ready     $ loading  starting     ready   storage"
    )
    for name in dict.fromkeys(each["scaler"] for each in rows):
        mine = [each for each in rows if each["scaler"] == name]
        hours = [
            sum(each["gpu_hours_by_state"][state] for each in mine)
            for state in ("loading", "starting", "ready")
        ]
        money = [
            sum(each["dollars_by_state"][state] for each in mine)
            for state in ("loading", "starting", "ready", "storage")
        ]
        print(
            f"{name:<25}{hours[0]:>19.1f}{hours[1]:>10.1f}{hours[2]:>10.1f}"
            + "".join(f"{each:>10.2f}" for each in money)
        )


def measure(
    title: str,
    chosen: Sequence[Workload],
    settings: Sequence[Setting],
    world: WorldSettings,
    *,
    processes: int,
    seeds: Sequence[int] = (1,),
    quiet: bool = False,
) -> list[Row]:
    """Every setting on every workload; the order does not depend on the number of processes."""
    prepare(chosen, world, processes)
    if not quiet:
        print(f"\n## {title}\n\n{HEADING}", flush=True)
    jobs = [
        lambda workload=workload, setting=setting: row(workload, setting, world, seeds)  # type: ignore[misc]
        for workload in chosen
        for setting in settings
    ]
    rows = []
    for made in in_order(jobs, processes):
        rows.append(made)
        if not quiet:
            show(made)
    return rows


def tuned_per_workload(rows: Sequence[Row]) -> list[Row]:
    """Per peer and workload, the setting that attains 0.99 at the lowest cost; if none does, the highest attainment."""
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for each in rows:
        groups.setdefault((each["workload"], each["workers"], each["scaler"]), []).append(each)
    return [_best(mine) for mine in groups.values()]


def _best(rows: Sequence[Row]) -> Row:
    attaining = [each for each in rows if each["within_10"] >= ATTAIN]
    if attaining:
        return min(attaining, key=lambda each: each["ratio"])
    return max(rows, key=lambda each: each["within_10"])


def best_per_workload(rows: Sequence[Row]) -> list[Row]:
    """Per workload, the cheapest peer and setting that attains 0.99: "peers tuned in hindsight per workload"."""
    keys = dict.fromkeys((each["workload"], each["workers"]) for each in rows)
    return [
        _best([each for each in rows if (each["workload"], each["workers"]) == key])
        | {"scaler": "the best peer"}
        for key in keys
    ]


def best_fixed(rows: Sequence[Row]) -> list[Row]:
    """The rows of the single peer setting that attains 0.99 on the most workloads, and costs least among those."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for each in rows:
        groups.setdefault((each["scaler"], each["setting"]), []).append(each)
    most = max(len(mine) for mine in groups.values())
    whole = [mine for mine in groups.values() if len(mine) == most]
    return max(
        whole,
        key=lambda mine: (
            sum(each["within_10"] >= ATTAIN for each in mine),
            -geomean([each["ratio"] for each in mine]),
        ),
    )


def summary(rows: Sequence[Row]) -> None:
    """Worst attainment, and the geometric mean of cost ÷ ORACLE99: over all workloads, and over large or diurnal
    ones."""
    print(
        "\nscaler                   worst ≤ 10 s  mean ≤ 10 s  ≥ 0.99 on   geomean cost÷O  … large or diurnal"
    )
    for name in dict.fromkeys(each["scaler"] for each in rows):
        mine = [each for each in rows if each["scaler"] == name]
        good = sum(each["within_10"] >= ATTAIN for each in mine)
        mean = sum(each["within_10"] for each in mine) / len(mine)
        print(
            f"{name:<25}{min(each['within_10'] for each in mine):>12.4f}{mean:>13.4f}{good:>8} of {len(mine):<3}"
            f"{geomean([each['ratio'] for each in mine]):>13.2f}{geomean(large(mine)):>18.2f}"
        )


def large(rows: Sequence[Row]) -> list[float]:
    """Ratios on large or diurnal workloads."""
    return [each["ratio"] for each in rows if each["workers"] >= 8 or each["diurnal"]]


def geomean(values: Sequence[float]) -> float:
    """The geometric mean; NaN of an empty list."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan
