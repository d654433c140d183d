"""The attainment that is possible at a given cost without knowledge of the arrivals."""

from collections.abc import Sequence
from typing import Any

from benchmarks.scaling.bounds.oracle import Prices
from benchmarks.scaling.bounds.reactive import Reached, frontier
from benchmarks.scaling.measure import ATTAIN, geomean, measure, oracle, prepare
from benchmarks.scaling.pool import in_order
from benchmarks.scaling.scalers import foresighted
from benchmarks.scaling.workloads import Workload
from simulation.market import PERF_UNIT
from simulation.settings import WorldSettings

SPARES = (0.0, 1.0, 2.0, 3.0)
LEAD_SECONDS = 60.0
LEAD_SECONDS_CREATING = 600.0


def reacting(chosen: Sequence[Workload], world: WorldSettings, *, processes: int) -> list[dict[str, Any]]:
    """The frontier of instant reaction, with parameters chosen in hindsight per workload."""
    where = "" if world.cold_pool else ", no cold pool"
    print(
        f"\n## Instant reaction without foresight{where}: sees every arrival at once, never fails, disks free\n"
    )
    print(
        f"{'workload':<22}{'load':>4}  starts nothing idle   cheapest with 0.99                          most for 1.6 x ORACLE99"
    )
    prices = Prices.of(world)
    median = world.start.p50 if world.cold_pool else sum(world.create_seconds) / 2 + world.loading.p50
    prepare(chosen, world, processes)

    def line_of(workload: Workload) -> list[Reached]:
        services = [work / PERF_UNIT for work in workload.trace.works]
        return frontier(
            workload.trace.times,
            services,
            start_seconds=median,
            billed_seconds=prices.restart,
            score_from=workload.score_from,
        )

    found = []
    lines = in_order([lambda each=each: line_of(each) for each in chosen], processes)  # type: ignore[misc]
    for workload, line in zip(chosen, lines, strict=True):
        cheapest = oracle(workload, world).seconds
        bare, good = line[0], [each for each in line if each.within >= ATTAIN]
        afford = [each for each in line if each.seconds <= 1.6 * cheapest]
        first = good[0] if good else None
        said = (
            f"{first.seconds / cheapest:>6.2f} (keep {first.keep_seconds:g} s, spare {first.spare}+{first.spare_share:g}x)"
            if first
            else "  none"
        )
        most = max((each.within for each in afford), default=float("nan"))
        print(
            f"{workload.name:<22}{workload.workers:>4}  {bare.within:.4f} at {bare.seconds / cheapest:>5.2f}      {said:<42}{most:>8.4f}",
            flush=True,
        )
        found.append(
            {
                "workload": workload.name,
                "workers": workload.workers,
                "bare": bare.within,
                "ratio_at_99": first.seconds / cheapest if first else None,
                "most_at_1_6": most,
                "frontier": [(each.within, each.seconds / cheapest) for each in line],
            }
        )
    paid = [each["ratio_at_99"] for each in found if each["ratio_at_99"] is not None]
    if paid:
        print(
            f"0.99 on {len(paid)} of {len(found)} workloads, for {geomean(paid):.2f} x ORACLE99 in the geomean"
        )
    return found


def foreseeing(chosen: Sequence[Workload], world: WorldSettings, *, processes: int) -> list[dict[str, Any]]:
    """The comparator that knows the true load of every minute, at several spares."""
    lead = LEAD_SECONDS if world.cold_pool else LEAD_SECONDS_CREATING
    return measure(
        "Told the true load of every minute, not the arrivals (spare in standard deviations of chance)",
        chosen,
        [foresighted(spare, lead_seconds=lead) for spare in SPARES],
        world,
        processes=processes,
    )
