"""Fronts: dollars per 1,000 requests against attainment and p99 wait, with the main knobs of each scaler swept."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.scaling.measure import Row, measure
from benchmarks.scaling.scalers import FIXED, PEERS, Setting, fixed, settings
from benchmarks.scaling.workloads import Workload
from simulation.settings import WorldSettings
from stoker_wire.endpoint import EndpointConfig

LEVELS = (0.90, 0.95, 0.99, 0.995)
"""Attainments at which the policy's front is compared with the peers'."""
P99_SECONDS = (2.0, 10.0, 30.0)
"""p99 waits at which it is compared, too."""
KNOBS: tuple[dict[str, float], ...] = (
    {"error_budget": 1.0, "target_queue_time": 30.0},
    {"error_budget": 0.3, "target_queue_time": 16.0},
    *({"error_budget": budget} for budget in (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)),
    {"error_budget": 0.003, "target_queue_time": 4.0},
    {"error_budget": 0.001, "target_queue_time": 2.0},
    {"error_budget": 0.001, "target_queue_time": 2.0, "target_util": 0.7},
)
"""The policy's settings: from a long target and a large error budget to a short target with spare capacity."""
_T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36}
"""Student's t for a two-sided interval of 95 %, by the number of seeds."""


def swept(
    names: set[str], config: EndpointConfig = FIXED, *, settings_max: int | None = None
) -> list[Setting]:
    """The policy in the settings of `KNOBS`, and the peers in their first `settings_max` settings, the defaults first.

    `names` limits the scalers.
    """
    ours = [
        Setting(
            "stoker",
            ", ".join(f"{name} {value:g}" for name, value in knobs.items()),
            each.make,
            each.line_seconds,
        )
        for knobs in KNOBS
        for each in [fixed(config.model_copy(update=knobs))]
    ]
    peers = [each for name in PEERS for each in settings(name)[:settings_max]]
    return [each for each in ours + peers if not names or each.scaler in names]


def fronts(
    chosen: Sequence[Workload],
    world: WorldSettings,
    contestants: Sequence[Setting],
    *,
    processes: int,
    seeds: Sequence[int],
) -> list[Row]:
    """Measures every setting on every workload; prints each workload's front and the comparison at `LEVELS`."""
    rows = measure("", chosen, contestants, world, processes=processes, seeds=seeds, quiet=True)
    where = "" if world.cold_pool else ", no cold pool"
    for workload in chosen:
        mine = of(rows, workload)
        print(f"\n## Front of {workload.name}, load {workload.workers}{where}\n")
        print(
            f"{'scaler':<24}{'setting':<44}{'$/1,000':>10}{'± 95 %':>8}{'≤ 10 s':>8}{'p50 s':>7}{'p99 s':>8}"
            f"{'p99.9 s':>9}{'mean s':>8}"
        )
        best = {id(each) for each in undominated(mine)}
        for each in sorted(mine, key=lambda one: one["per_1000"]):
            print(
                f"{'* ' if id(each) in best else '  '}{each['scaler']:<22}{each['setting'][:43]:<44}"
                f"{each['per_1000']:>10.3f}{half_width(each['per_1000_by_seed']):>8.3f}{each['within_10']:>8.4f}"
                f"{each['p50']:>7.1f}{each['p99']:>8.1f}{each['p999']:>9.1f}{each['mean']:>8.2f}",
                flush=True,
            )
    print("\n## Cost of the policy ÷ that of the cheapest peer, by the share that waits at most 10 s\n")
    _compare(
        chosen, rows, {f"{level}": lambda each, least=level: each["within_10"] >= least for level in LEVELS}
    )  # type: ignore[misc]
    print("\n## The same by the p99 wait, s\n")
    _compare(
        chosen, rows, {f"≤ {most:g}": lambda each, most=most: each["p99"] <= most for most in P99_SECONDS}
    )  # type: ignore[misc]
    return rows


def _compare(
    chosen: Sequence[Workload], rows: Sequence[Row], columns: dict[str, Callable[[Row], bool]]
) -> None:
    print(f"{'workload':<22}{'load':>4}" + "".join(f"{name:>28}" for name in columns))
    for workload in chosen:
        mine = of(rows, workload)
        cells = "".join(f"{compared(list(filter(reaches, mine))):>28}" for reaches in columns.values())
        print(f"{workload.name:<22}{workload.workers:>4}{cells}")


def of(rows: Iterable[Row], workload: Workload) -> list[Row]:
    """The rows of one workload."""
    key = (workload.name, workload.workers)
    return [each for each in rows if (each["workload"], each["workers"]) == key]


def undominated(rows: Sequence[Row]) -> list[Row]:
    """The settings for which no other one is both cheaper and on time more often, cheapest first."""
    best: list[Row] = []
    for each in sorted(rows, key=lambda one: (one["per_1000"], -one["within_10"])):
        if not best or each["within_10"] > best[-1]["within_10"]:
            best.append(each)
    return best


def compared(reached: Sequence[Row]) -> str:
    """The policy's cost over that of the cheapest peer, of the settings that reach a goal."""
    ours = min((each["per_1000"] for each in reached if each["scaler"] == "stoker"), default=math.nan)
    peer = min(
        (each for each in reached if each["scaler"] != "stoker"),
        key=lambda each: each["per_1000"],
        default=None,
    )
    if peer is None:
        return "no peer" if not math.isnan(ours) else "none"
    return (
        f"{ours / peer['per_1000']:.2f} {peer['scaler']}"
        if not math.isnan(ours)
        else f"only {peer['scaler']}"
    )


def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % confidence interval of the mean; NaN for one seed."""
    if len(values) not in _T95:
        return math.nan
    return _T95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))


def draw(rows: Sequence[Row], workload: Workload, path: Path) -> None:
    """A picture of a workload's front: attainment and p99 wait over dollars per 1,000 requests."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 - only for pictures
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator  # noqa: PLC0415

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="tight")
    for scaler in dict.fromkeys(each["scaler"] for each in rows):
        mine = sorted((each for each in rows if each["scaler"] == scaler), key=lambda each: each["per_1000"])
        ours = scaler == "stoker"
        look = {"marker": "o", "lw": 1.6, "color": "#2b2b2b"} if ours else {"marker": "x", "lw": 0}
        dollars = [each["per_1000"] for each in mine]
        look |= {"xerr": [half_width(each["per_1000_by_seed"]) for each in mine], "elinewidth": 0.7}
        late = [max(1.0 - each["within_10"], 1e-4) for each in mine]
        errors = [half_width(each["within_10_by_seed"]) for each in mine]
        axes[0].errorbar(dollars, late, yerr=errors, label=scaler, **look)
        p99 = [min(max(each["p99"], 0.1), 3600.0) for each in mine]
        axes[1].errorbar(dollars, p99, label=scaler, **look)
    axes[0].set_ylabel("share that waits longer than 10 s")
    axes[1].set_ylabel("p99 wait, s")
    for each in axes:
        each.set(xscale="log", yscale="log", xlabel=r"\$ per 1,000 requests")
        each.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        each.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        each.xaxis.set_minor_locator(NullLocator())
        each.grid(alpha=0.25)
    axes[1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.suptitle(f"{workload.name}, mean load {workload.workers}", fontsize=11)
    figure.savefig(path, dpi=90)
    plt.close(figure)
