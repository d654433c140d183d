"""Time from a request at zero to the marketplace's start: `python -m benchmarks.wake [--rounds 30] [--quick]`.

The real parts of `stokerd dev`: a Temporal dev server on a file, one Temporal worker and one engine. This process plays
client and marketplace. Before each wake the floor is measured on the same Temporal: a bare signal, a local activity and
an activity, whose client and worker are this process. The parts are from the histories' timestamps.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvloop

from benchmarks.engine.floor import Floor
from benchmarks.engine.machine import facts
from benchmarks.scale.checks import until_known
from benchmarks.scale.phases import parts_of, phases
from benchmarks.scale.seed import Part, start_all
from benchmarks.scale.stage import Stage
from stoker_wire.control import LOOK_NOW, workflow_id

GOAL = 1.5
COST = 60.0
SETTLE_SECONDS = 10.0
PAUSE_SECONDS = 0.5
"""Before each measurement, so that what the last one caused is over."""
ANSWER_SECONDS_MAX = 30.0
_POLL_SECONDS = 0.02

Parts = list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Measured:
    """The parts of each round, in seconds; a round's time is their sum."""

    floor: list[Parts]
    wakes: list[Parts]


async def measure(rounds: int) -> Measured:
    """An endpoint at zero for each round. The first round also fills caches and is left out."""
    with tempfile.TemporaryDirectory(prefix="stoker-wake-") as folder:
        stage = Stage(Path(folder) / "state", calls_per_second_max=20.0)
        async with stage.running():
            client = await stage.stack.client()
            await start_all(client, stage.seed(rounds + 1, 1, part=Part.ASLEEP))
            await until_known(stage, client, rounds + 1)
            for endpoint in stage.endpoints:  # a deployment has listed its instances
                await client.get_workflow_handle(workflow_id(endpoint.name)).signal(LOOK_NOW)
            await asyncio.sleep(SETTLE_SECONDS)
            bare = []
            async with Floor.running(client) as floor:
                for endpoint in stage.endpoints:
                    await asyncio.sleep(PAUSE_SECONDS)
                    bare.append(await floor.measure())
                    await asyncio.sleep(PAUSE_SECONDS)
                    await _wake(stage, endpoint.name, endpoint.key)
                history = await floor.history()
            events = stage.events.all[1:]
            wakes = [list((await phases(client, event, 0.0)).parts) for event in events]
    return Measured([parts_of(history, *each, "activity runs") for each in bare[1:]], wakes)


async def _wake(stage: Stage, name: str, key: str) -> None:
    stage.events.happened("wake", name)
    stage.clients.send(name, key, COST)
    async with asyncio.timeout(ANSWER_SECONDS_MAX):
        while stage.events.open:  # noqa: ASYNC110 - its time is taken when the marketplace gets the call
            await asyncio.sleep(_POLL_SECONDS)


def report(found: Measured) -> None:
    """Medians, parts and goal."""
    middle = []
    for title, rounds in (("floor", found.floor), ("wake", found.wakes)):
        totals = sorted(sum(seconds for _, seconds in parts) * 1000 for parts in rounds)
        middle.append(statistics.median(totals))
        print(
            f"{title}: p50 {middle[-1]:.1f} ms, p10 {totals[len(totals) // 10]:.1f},"
            f" max {totals[-1]:.1f} ({len(totals)} rounds)"
        )
        print("  medians until: " + ", ".join(f"{name} {ms:.1f}" for name, ms in _medians(rounds)))
    print(f"against the floor {middle[1] / middle[0]:.2f} (goal: at most {GOAL})")


def _medians(rounds: Iterable[Parts]) -> list[tuple[str, float]]:
    """Milliseconds of each part."""
    columns: dict[str, list[float]] = defaultdict(list)
    for parts in rounds:
        for name, seconds in parts:
            columns[name].append(seconds * 1000)
    return [(name, statistics.median(column)) for name, column in columns.items()]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--quick", action="store_true", help="ten rounds")
    options = parser.parse_args()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(30),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    print(facts(), flush=True)
    report(uvloop.run(measure(10 if options.quick else options.rounds)))
    print(f"at the end: {facts()}")


if __name__ == "__main__":
    main()
