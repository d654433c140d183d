"""Thirty days of one endpoint: Temporal actions per day, the size of the carried state, and leaks.

    python -m benchmarks.long_life [DAYS]

The workflow, its activities and the policy run unchanged on the in-process server of `tests/seeded`, in virtual time.
The engine's `MetricsBatcher` decides when metrics are sent. Actions are counted as in `benchmarks.temporal_actions`.
"""

import logging
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import structlog

from benchmarks.temporal_actions import FLEET, IDLE_TARGET, Case, live
from policy.signalling.metrics_batcher import MetricsBatcher
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.states import WorkerState
from tests.seeded.temporal.environment import a_world_here
from tests.seeded.temporal.virtual_time import sealed
from tests.workflows.world import group

DAYS = 30
STEP_SECONDS = 30.0
REQUEST_LOAD = 100.0
STATE_BYTES_MAX = 100_000

CASES = (
    Case("10 ready workers, Poisson load", FLEET, load=850, poisson=True, workers=10),
    Case("10 cold workers, no load", FLEET, target=IDLE_TARGET),
    Case("no workers, no load", EndpointConfig(min_load=0, min_workers=0), target=IDLE_TARGET),
)


@dataclass
class Life:
    """The results of the days."""

    case: Case
    days: int
    actions: list[Counter[str]] = field(default_factory=list)
    """Temporal actions of each day."""
    handed_over: list[int] = field(default_factory=list)
    """Bytes of each continue-as-new."""
    rented: int = 0
    ready: int = 0
    ledger_dollars: float = 0.0
    market_dollars: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def busiest(self) -> int:
        """Actions of the busiest day; the first day, with the initial rentals, is left out."""
        return max(sum(day.values()) for day in self.actions[1:] or self.actions)


def life(case: Case, days: int) -> Life:
    """Runs the days."""
    began = time.process_time()
    with sealed(1) as loop:
        lived = loop.run_until_complete(_days(case, days))
    lived.cpu_seconds = time.process_time() - began
    return lived


async def _days(case: Case, days: int) -> Life:
    faults: list[BaseException] = []
    world, server = a_world_here(on_fault=faults.append)
    server.keeps_history = False
    lived = Life(case, days)
    await world.start(case.config, [group(search_params="gpu_name=RTX_4090", test_workers=0)])
    batcher, chance = MetricsBatcher(world.now), random.Random(1)
    before: Counter[str] = Counter()
    for _ in range(days):
        await live(world, case, batcher, chance, 86_400.0, step=STEP_SECONDS, request_load=REQUEST_LOAD)
        if faults:
            raise faults[0]
        lived.actions.append(server.billed - before)
        before = server.billed.copy()
    memo = await world.memo()
    lived.ready = sum(member.s is WorkerState.READY for member in memo.members)
    lived.rented = len(world.market.launches)
    lived.handed_over = server.handed_over
    lived.ledger_dollars = (await server.client.get_workflow_handle("endpoint/llm").query("costs"))["dollars"]
    lived.market_dollars = sum(bill.dollars for bill in await world.market.charges())
    return lived


def table(lives: list[Life]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| endpoint | days | actions, busiest day | allowed | runs | bytes handed on, most | rented | ledger | market | CPU |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in lives:
        cells = [
            each.case.name,
            each.days,
            each.busiest,
            each.case.target,
            len(each.handed_over) + 1,
            max(each.handed_over, default=0),
            each.rented,
            f"${each.ledger_dollars:.2f}",
            f"${each.market_dollars:.2f}",
            f"{each.cpu_seconds:.0f} s",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    days = int(sys.argv[1]) if len(sys.argv) > 1 else DAYS
    chosen = [int(word) for word in sys.argv[2:]] or range(len(CASES))
    print(table([life(CASES[number], days) for number in chosen]), flush=True)


if __name__ == "__main__":
    main()
