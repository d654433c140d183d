"""The scaling policy against its peers and a clairvoyant: `make bench-policy`, or `python -m
benchmarks.scaling_policy [--quick]`.

Prints the fronts, dollars per 1,000 requests against waits with the main knobs of each scaler swept; every run with
its waits, dollars and capacity; the peers at their defaults and with settings chosen in hindsight; the same without a
cold pool; the bounds without foresight; the price of work on a market of several machine kinds; routing against one
central queue; affinity on prefix-heavy traffic; servers that take several requests at a time; interruptible machines
beside on-demand ones; the simulator's speed; and the goals beside the results. `--json` writes all results,
`--pictures` draws a run per workload. Method and limits: docs/explanation/simulation.md.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.scaling import affinity, batching, pareto_front, routing, spot
from benchmarks.scaling.bounds import frontier
from benchmarks.scaling.bounds.oracle import Prices, lower_bound, reference
from benchmarks.scaling.generators import diurnal
from benchmarks.scaling.goals import goals
from benchmarks.scaling.measure import (
    Row,
    best_fixed,
    best_per_workload,
    by_state,
    measure,
    one,
    oracle,
    prepare,
    show,
    summary,
    tuned_per_workload,
)
from benchmarks.scaling.pool import cores, in_order
from benchmarks.scaling.scalers import FIXED, NO_POOL, PEERS, Setting, defaults, fixed, settings
from benchmarks.scaling.workloads import Workload, workloads
from simulation.controller_host import SimulatedController
from simulation.market import PERF_UNIT
from simulation.run import run
from simulation.scoring import RunScore
from simulation.settings import DEFAULT_WORLD, MachineKind, WorldSettings, calm

PARTS = (
    "fronts",
    "pool",
    "hindsight",
    "nopool",
    "bounds",
    "reacting",
    "frontier",
    "kinds",
    "routing",
    "affinity",
    "batching",
    "spot",
    "speed",
)
POOL, RELEASED = calm(DEFAULT_WORLD), calm(DEFAULT_WORLD.but(cold_pool=False))
KINDS = (
    MachineKind(name="RTX 3090", perf=1.0, dollars_per_hour=0.21),
    MachineKind(name="RTX 4090", perf=2.0, dollars_per_hour=0.42),
    MachineKind(name="RTX 5090", perf=3.0, dollars_per_hour=0.48),
    MachineKind(name="H100", perf=6.0, dollars_per_hour=1.90),
)
"""Prices as seen on a public marketplace, 2025-2026; perf of a 7B language model, relative."""


@dataclass
class Bench:
    """The options, and the results so far."""

    chosen: Sequence[Workload]
    wanted: set[str]
    names: set[str]
    processes: int
    seeds: tuple[int, ...]
    quick: bool
    measured: dict[str, Any] = field(default_factory=dict)

    def of(self, contestants: Sequence[Setting]) -> list[Setting]:
        """The named workloads, or all."""
        return [each for each in contestants if not self.names or each.scaler in self.names]

    def compare(self, title: str, world: WorldSettings, config: Any, key: str) -> None:
        """The policy and the peers at their defaults, then the peers with settings chosen in hindsight."""
        rows = measure(
            title, self.chosen, self.of(defaults(config)), world, processes=self.processes, seeds=self.seeds
        )
        summary(rows)
        by_state(rows)
        self.measured[key] = rows
        if "hindsight" in self.wanted:
            tried = self.try_all(world, rows)
            self.measured["hindsight" if key == "pool" else f"{key}_hindsight"] = tried

    def try_all(self, world: WorldSettings, rows: Sequence[Row]) -> list[Row]:
        """Every peer in every setting; shows the best per peer and workload."""
        others = [each for name in PEERS for each in settings(name)[1:]]
        done = [each for each in rows if each["scaler"] != "stoker"]
        tried = done + measure("", self.chosen, self.of(others), world, processes=self.processes, quiet=True)
        if not tried:
            return tried
        print("\n## Each peer in the setting that hindsight would choose for the workload\n")
        for each in tuned_per_workload(tried):
            show(each)
        summary([*tuned_per_workload(tried), *best_per_workload(tried)])
        fixed = best_fixed(tried)
        print(f"\nthe best peer in one setting for all: {fixed[0]['scaler']}, {fixed[0]['setting']}")
        summary(fixed)
        return tried


def bounds(chosen: Sequence[Workload], world: WorldSettings, step: float, processes: int) -> list[Row]:
    """The possible distance of the clairvoyant schedule from the optimum."""
    print(f"\n## ORACLE99 ÷ a lower bound of it, on a grid of {step:g} s\n")

    def bound(workload: Workload) -> Row:
        made = oracle(workload, world)
        grid = max(step, step * workload.workers / 2)
        below = lower_bound(*workload.scored, Prices.of(world), step=grid)
        off = 2 * grid * made.starts / made.seconds
        return {
            "workload": workload.name, "workers": workload.workers, "grid": grid,
            "over": made.seconds / below, "off_grid": off, "busy": made.busy_seconds / made.seconds,
        }  # fmt: skip

    prepare(chosen, world, processes)
    rows = []
    for made in in_order([lambda each=each: bound(each) for each in chosen], processes):  # type: ignore[misc]
        rows.append(made)
        print(
            f"{made['workload']:<22}{made['workers']:>4}  at most {made['over']:.2f} times the optimum on a grid of {made['grid']:g} s;"
            f" off it starts could save {made['off_grid']:.1%} more; {made['busy']:.0%} of its cost is service",
            flush=True,
        )
    return rows


def kinds(hours: float) -> dict[str, float]:
    """Dollars per unit of work on a market of four kinds ÷ those of the best single kind in hindsight."""
    settings = DEFAULT_WORLD.but(kinds=KINDS)
    best = reference(settings)
    trace = diurnal(requests=int(hours * 900), days=hours / 24.0, depth=0.4).scaled(
        mean_load=best.perf * 100.0 * 8
    )
    day = min(86_400.0, trace.seconds / 2)

    def played(world: WorldSettings) -> RunScore:
        return run(
            trace,
            SimulatedController(FIXED),
            world,
            seed=2,
            score_from=day,
            config=FIXED,
        )

    mixed, alone = played(settings), played(settings.but(kinds=(best,)))
    ratio = (mixed.dollars / mixed.work) / (alone.dollars / alone.work)
    print("\n## Four machine kinds at $0.21 to $1.90, unknown at first\n")
    print(
        f"dollars per million load ÷ the best kind alone, same policy, after the first day: {ratio:.3f} (≤ 10 s: {mixed.within_10:.4f})"
    )
    return {"ratio": ratio, "within_10": mixed.within_10}


def speed() -> dict[str, float]:
    """One week of 300,000 requests."""
    trace = diurnal(requests=300_000, days=7.0).scaled(mean_load=300.0)
    began = time.process_time()
    pilot = SimulatedController(FIXED)
    result = run(trace, pilot, seed=1, config=FIXED)
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


def routes(quick: bool) -> list[dict[str, Any]]:
    """The routing table."""
    print(f"\n## Routing: p99 and mean response ÷ one central queue\n\n{routing.HEADING}")
    made = []
    for line in routing.table(10_000 if quick else 60_000, 3):
        print(line, flush=True)
        made.append(asdict(line))
    return made


def prefixes(quick: bool) -> list[dict[str, Any]]:
    """The affinity table."""
    print(f"\n## Affinity: prefix-heavy traffic\n\n{affinity.HEADING}")
    made = []
    for line in affinity.table(10_000 if quick else 60_000, 3):
        print(line, flush=True)
        made.append(asdict(line))
    return made


def batches(quick: bool) -> list[dict[str, Any]]:
    """The table of servers that take several requests at a time."""
    print(f"\n## Several requests at a time\n\n{batching.HEADING}")
    made = []
    for line in batching.table(servers=batching.SERVERS[:1] if quick else batching.SERVERS):
        print(line, flush=True)
        made.append(asdict(line))
    return made


def interruptible(seeds: Sequence[int], *, quick: bool) -> list[dict[str, Any]]:
    """The table of machines that are outbid."""
    print(f"\n## Interruptible machines beside on-demand ones\n\n{spot.HEADING}")
    made = []
    for line in spot.table(seeds, spot.TRACES[1:2] if quick else spot.TRACES):
        print(line, flush=True)
        made.append(asdict(line))
    return made


def slug(workload: Workload) -> str:
    """The workload in a file name."""
    return f"{workload.name.replace('/', '-').replace(' ', '-')}-{workload.workers}"


def draw(chosen: Sequence[Workload], world: WorldSettings, folder: Path, processes: int) -> None:
    """A picture of the policy's run per workload."""
    from run.commands.simulate import draw as draw_run  # noqa: PLC0415 - only for pictures

    folder.mkdir(parents=True, exist_ok=True)

    def drawn(workload: Workload) -> Path:
        path, price = folder / f"{slug(workload)}.svg", world.kinds[0].dollars_per_hour
        draw_run(one(workload, fixed(), world), path, perf=PERF_UNIT, dollars_per_hour=price)
        return path

    for path in in_order([lambda each=each: drawn(each) for each in chosen], processes):  # type: ignore[misc]
        print(f"drew {path}")


def arguments() -> argparse.Namespace:
    """The command line options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="short parts of the traces, loads of 1 and 8")
    parser.add_argument("--loads", default="", help="mean loads in workers, e.g. 1,3,8,16")
    parser.add_argument("--only", default="", help=f"of: {', '.join(PARTS)}")
    parser.add_argument("--traces", default="", help="only these workloads, e.g. servegen_onoff,sparse")
    parser.add_argument("--first", action="store_true", help="the first parts of the traces, for tuning")
    parser.add_argument("--scalers", default="", help="only these, e.g. stoker,Ray Serve")
    parser.add_argument("--settings", type=int, default=2, help="of each peer in the fronts; 0: all of them")
    parser.add_argument("--seeds", type=int, default=1, help="medians over so many seeds of the world")
    parser.add_argument("--processes", type=int, default=cores(), help="run so many at a time")
    parser.add_argument("--json", type=Path, help="write what was measured here")
    parser.add_argument("--pictures", type=Path, help="draw the policy's runs into this folder")
    return parser.parse_args()


def main() -> int:
    """Runs the selected parts."""
    args = arguments()
    loads = tuple(int(each) for each in args.loads.split(",") if each) or (
        (1, 8) if args.quick else (1, 3, 8, 16)
    )
    wanted = set(args.only.split(",")) if args.only else set(PARTS)
    if unknown := wanted - set(PARTS):
        print(f"--only: expected some of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
        return 2
    if args.quick and not args.only:
        wanted.discard("hindsight")
    traces = {each for each in args.traces.split(",") if each}
    chosen = [
        each
        for each in workloads(loads, quick=args.quick, tuning=args.first)
        if not traces or each.name in traces
    ]
    bench = Bench(
        chosen, wanted, {each for each in args.scalers.split(",") if each}, args.processes,
        tuple(range(1, args.seeds + 1)), args.quick,
    )  # fmt: skip
    if "pool" in wanted:
        bench.compare("Cold pool", POOL, FIXED, "pool")
    if "nopool" in wanted:
        bench.compare("No cold pool: every start is a create", RELEASED, NO_POOL, "nopool")
    small = [each for each in chosen if each.workers <= 3]

    def all_fronts() -> list[Row]:
        contestants = pareto_front.swept(bench.names, settings_max=args.settings or None)
        rows = pareto_front.fronts(chosen, POOL, contestants, processes=args.processes, seeds=bench.seeds)
        if args.pictures:
            args.pictures.mkdir(parents=True, exist_ok=True)
            for each in chosen:
                pareto_front.draw(
                    pareto_front.of(rows, each), each, args.pictures / f"front-{slug(each)}.png"
                )
        return rows

    parts: dict[str, Callable[[], Any]] = {
        "fronts": all_fronts,
        "bounds": lambda: bounds(small, POOL, 5.0 if args.quick else 2.5, args.processes),
        "reacting": lambda: frontier.reacting(chosen, POOL, processes=args.processes),
        "frontier": lambda: {
            "reacting_nopool": frontier.reacting(chosen, RELEASED, processes=args.processes),
            "foreseeing": frontier.foreseeing(small, POOL, processes=args.processes),
        },
        "kinds": lambda: kinds(12.0 if args.quick else 48.0),
        "routing": lambda: routes(args.quick),
        "affinity": lambda: prefixes(args.quick),
        "batching": lambda: batches(args.quick),
        "spot": lambda: interruptible(bench.seeds, quick=args.quick),
        "speed": speed,
    }
    for name, part in parts.items():
        if name in wanted:
            bench.measured[name] = part()
    goals(bench.measured)
    if args.pictures:
        draw(chosen, POOL, args.pictures, args.processes)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(bench.measured, indent=1, default=str) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
