"""The scaling policy against its peers and a clairvoyant: `python -m benchmarks.scaling_policy [--quick] [--loads 1,3,8,16]`.

Prints attainment and cost ÷ ORACLE99 per workload, the same without a cold pool, the price of work on a market of several
machine kinds, routing against one central queue, and how fast the simulator is. `--json` writes everything that was measured,
`--pictures` draws a run per workload. Method and limits: docs/how-to/simulate.md.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.scaling import routing
from benchmarks.scaling.contestants import DEFAULTS, FIXED, NO_POOL, Make, stoker, tuned
from benchmarks.scaling.workloads import Workload, workloads
from simulation.figures import Figures
from simulation.generators import diurnal
from simulation.oracle import Prices, lower_bound, schedule
from simulation.pilot import PolicyPilot
from simulation.run import run
from simulation.settings import DEFAULT_WORLD, KINDS, WorldSettings, calm

ATTAIN = 0.99
_ORACLES: dict[tuple[str, int, bool], float] = {}


def oracle(workload: Workload, settings: WorldSettings) -> float:
    """Dollars of the clairvoyant's schedule for the scored part."""
    key = (workload.name, workload.workers, settings.cold_pool)
    if key not in _ORACLES:
        prices = Prices.of(settings)
        _ORACLES[key] = prices.dollars(schedule(*workload.scored, prices).seconds)
    return _ORACLES[key]


def one(workload: Workload, make: Make, settings: WorldSettings) -> Figures:
    """One run, scored."""
    return run(
        workload.trace,
        make(workload),
        settings,
        seed=1,
        score_from=workload.score_from,
        max_queue_time=FIXED.max_queue_time,
        target_queue_time=FIXED.target_queue_time,
    )


def row(workload: Workload, name: str, figures: Figures, cheapest: float, seconds: float) -> dict[str, Any]:
    """What is kept of a run."""
    return {
        "workload": workload.name, "workers": workload.workers, "diurnal": workload.diurnal, "scaler": name,
        "within_2": figures.within_2, "within_10": figures.within_10, "p50": figures.wait_p50,
        "p99": figures.wait_p99, "p999": figures.wait_p999, "dollars": figures.dollars,
        "ratio": figures.dollars / cheapest, "utilisation": figures.utilisation,
        "dollars_by_state": figures.dollars_by_state, "gpu_hours_by_state": figures.gpu_hours_by_state,
        "over_hours": figures.over_hours, "under_hours": figures.under_hours,
        "starts_per_hour": figures.starts_per_hour, "stops_per_hour": figures.stops_per_hour,
        "creates_per_hour": figures.creates_per_hour, "requests": figures.requests, "seconds": seconds,
    }  # fmt: skip


def show(made: dict[str, Any]) -> None:
    """One line of the long table."""
    print(
        f"{made['workload']:<22}{made['workers']:>3}  {made['scaler']:<24}"
        f"{made['within_2']:>7.4f}{made['within_10']:>8.4f}{made['p99']:>8.1f}{made['ratio']:>8.2f}"
        f"{made['utilisation']:>6.2f}{made['starts_per_hour']:>8.1f}{made['creates_per_hour']:>8.1f}",
        flush=True,
    )


def measure(
    title: str, chosen: Iterable[Workload], contestants: dict[str, Make], settings: WorldSettings
) -> list[dict[str, Any]]:
    """Every contestant on every workload."""
    print(f"\n## {title}\n")
    print(
        "workload             load  scaler                      ≤ 2 s  ≤ 10 s   p99 s  cost÷O  util  start/h  creat/h"
    )
    rows = []
    for workload in chosen:
        cheapest = oracle(workload, settings)
        for name, make in contestants.items():
            began = time.perf_counter()
            figures = one(workload, make, settings)
            rows.append(row(workload, name, figures, cheapest, time.perf_counter() - began))
            show(rows[-1])
    return rows


def hindsight(
    chosen: Iterable[Workload], names: Iterable[str], settings: WorldSettings, rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Each peer with the settings that, seen afterwards, cost least among those that attain 0.99, or else attain most."""
    print("\n## Peers tuned in hindsight, per workload\n")
    best_rows = []
    for workload in chosen:
        for name in names:
            made = [
                row(workload, f"{name} tuned", one(workload, make, settings), oracle(workload, settings), 0.0)
                | {"setting": setting}
                for setting, make in tuned(name)
            ]
            made += [
                each | {"scaler": f"{name} tuned", "setting": "defaults"}
                for each in rows
                if (each["workload"], each["workers"], each["scaler"])
                == (workload.name, workload.workers, name)
            ]
            attaining = [each for each in made if each["within_10"] >= ATTAIN]
            best = (
                min(attaining, key=lambda each: each["ratio"])
                if attaining
                else max(made, key=lambda each: each["within_10"])
            )
            best_rows.append(best)
            show(best)
    return best_rows


def summary(rows: list[dict[str, Any]]) -> None:
    """Worst attainment, and the geometric mean of cost ÷ ORACLE99: over all workloads, and over large or diurnal ones."""
    print("\nscaler                   worst ≤ 10 s  ≥ 0.99 on   geomean cost÷O  … large or diurnal")
    for name in dict.fromkeys(each["scaler"] for each in rows):
        mine = [each for each in rows if each["scaler"] == name]
        large = [each["ratio"] for each in mine if each["workers"] >= 8 or each["diurnal"]]
        good = sum(each["within_10"] >= ATTAIN for each in mine)
        print(
            f"{name:<25}{min(each['within_10'] for each in mine):>10.4f}{good:>9} of {len(mine):<3}"
            f"{geomean([each['ratio'] for each in mine]):>14.2f}{geomean(large):>18.2f}"
        )


def geomean(values: list[float]) -> float:
    """The geometric mean; nan of nothing."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def kinds(hours: float) -> dict[str, float]:
    """Dollars per unit of work on a market of four kinds ÷ those of the kind that hindsight would rent alone."""
    settings = DEFAULT_WORLD.but(kinds=KINDS)
    best = settings.reference
    trace = diurnal(requests=int(hours * 900), days=hours / 24.0, depth=0.4).scaled(
        mean_load=best.perf * 100.0 * 8
    )
    day = min(86_400.0, trace.seconds / 2)
    config = FIXED.model_copy(update={"target_util": 1.0})
    mixed = run(trace, PolicyPilot(config), settings, seed=2, score_from=day)
    alone = run(trace, PolicyPilot(config), settings.but(kinds=(best,)), seed=2, score_from=day)
    ratio = mixed.dollars_per_unit / alone.dollars_per_unit
    print("\n## Four machine kinds at $0.21 to $1.90, unknown at first\n")
    print(
        f"dollars per million load ÷ the best kind alone, same policy, after the first day: {ratio:.3f} (≤ 10 s: {mixed.within_10:.4f})"
    )
    return {"ratio": ratio, "within_10": mixed.within_10}


def speed() -> dict[str, float]:
    """One week of 300,000 requests."""
    trace = diurnal(requests=300_000, days=7.0).scaled(mean_load=300.0)
    began = time.process_time()
    pilot = PolicyPilot(FIXED)
    result = run(trace, pilot, seed=1)
    seconds = time.process_time() - began
    print("\n## Speed\n")
    print(
        f"one week, {len(trace):,} requests, {pilot.plans:,} plans: {seconds:.1f} s on one core (wanted: 60 s)"
    )
    return {
        "seconds": seconds,
        "requests": float(len(trace)),
        "plans": float(pilot.plans),
        "within_10": result.within_10,
    }


def bounds(chosen: Iterable[Workload], settings: WorldSettings) -> list[dict[str, Any]]:
    """How far the clairvoyant's schedule can be from the optimum, where the bound is quick to compute."""
    print("\n## ORACLE99 ÷ a lower bound of it\n")
    found = []
    for workload in chosen:
        times, services = workload.scored
        prices = Prices.of(settings)
        made = schedule(times, services, prices).seconds
        below = lower_bound(times, services, prices, step=2.5)
        found.append(
            {"workload": workload.name, "workers": workload.workers, "schedule_over_bound": made / below}
        )
        print(
            f"{workload.name:<22}{workload.workers:>3}  at most {made / below:.2f} times the optimum",
            flush=True,
        )
    return found


def routes(quick: bool) -> list[tuple[str, str, float]]:
    """The routing table."""
    print("\n## Routing: p99 response ÷ one central queue\n")
    lines = routing.table(10_000 if quick else 60_000, 3)
    for case, knowledge, ratio in lines:
        print(f"{case:<22}{knowledge:<40}{ratio:>6.2f}")
    return lines


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--quick", action="store_true", help="short parts of the traces, two loads, no hindsight"
    )
    parser.add_argument("--loads", default="", help="mean loads in workers, e.g. 1,3,8,16")
    parser.add_argument(
        "--only", default="", help="of: pool, hindsight, nopool, bounds, kinds, routing, speed"
    )
    parser.add_argument(
        "--generated", action="store_true", help="seeded traffic instead of the shared traces"
    )
    parser.add_argument("--scalers", default="", help="only these, e.g. stoker,Ray Serve")
    parser.add_argument("--json", type=Path, help="write what was measured here")
    parser.add_argument("--pictures", type=Path, help="draw the policy's runs into this folder")
    args = parser.parse_args()
    loads = tuple(int(each) for each in args.loads.split(",") if each) or (
        (1, 8) if args.quick else (1, 3, 8, 16)
    )
    wanted = (
        set(args.only.split(",")) if args.only else {"pool", "nopool", "bounds", "kinds", "routing", "speed"}
    )
    if not args.only and not args.quick:
        wanted.add("hindsight")
    chosen = workloads(loads, quick=args.quick, generated=args.generated)
    measured: dict[str, Any] = {}
    names = {each for each in args.scalers.split(",") if each}

    def of(contestants: dict[str, Make]) -> dict[str, Make]:
        return {name: make for name, make in contestants.items() if not names or name in names}

    pool, released = calm(DEFAULT_WORLD), calm(DEFAULT_WORLD.but(cold_pool=False))
    if "pool" in wanted:
        rows = measure("Cold pool", chosen, of({"stoker": stoker()} | DEFAULTS), pool)
        summary(rows)
        if "hindsight" in wanted:
            peers = ("Knative KPA", "Ray Serve", "Vast's documented rule", "static peak")
            rows += hindsight(chosen, peers, pool, rows)
            summary(rows)
        measured["pool"] = rows
    if "nopool" in wanted:
        few = {name: DEFAULTS[name] for name in ("Knative KPA", "Ray Serve", "Vast's documented rule")}
        rows = measure(
            "No cold pool: every start is a create", chosen, {"stoker": stoker(NO_POOL)} | few, released
        )
        summary(rows)
        measured["nopool"] = rows
    parts: dict[str, Callable[[], Any]] = {
        "bounds": lambda: bounds([w for w in chosen if w.workers <= 1], pool),
        "kinds": lambda: kinds(12.0 if args.quick else 48.0),
        "routing": lambda: routes(args.quick),
        "speed": speed,
    }
    for name, part in parts.items():
        if name in wanted:
            measured[name] = part()
    if args.pictures:
        draw(chosen, pool, args.pictures)
    if args.json:
        args.json.write_text(json.dumps(measured, indent=1, default=str) + "\n")
    return 0


def draw(chosen: Iterable[Workload], settings: WorldSettings, folder: Path) -> None:
    """A picture of the policy's run per workload."""
    from simulation.pictures import picture  # noqa: PLC0415 - matplotlib only for pictures

    folder.mkdir(parents=True, exist_ok=True)
    for workload in chosen:
        path = folder / f"{workload.name}-{workload.workers}.png"
        picture(one(workload, stoker(), settings), path)
        print(f"drew {path}")


if __name__ == "__main__":
    sys.exit(main())
