"""Runs one seed again and prints its events: `python -m tests.seeded SEED`."""

import logging
import sys

import structlog

from tests.seeded.scenario import scenario
from tests.seeded.temporal.virtual_time import BEGINNING, sealed
from tests.seeded.world import World


def tell(world: World) -> None:
    """Prints the market operations with their reasons, and the history of each machine."""
    said = [
        (at, f"{launch_id} {op}: {why}")
        for launch_id, operations in world.invariants.reasons.items()
        for op, (at, why) in operations.items()
    ]
    for at, line in sorted(said):
        print(f"{at - BEGINNING:9.1f} s  {line}")
    print()
    for machine in world.market.machines.values():
        states = ", ".join(f"{at - BEGINNING:.0f} s {actual or 'created'}" for at, actual, _ in machine.story)
        gone = f", {machine.gone_at - BEGINNING:.0f} s {machine.why_gone}" if machine.gone_at else ""
        print(
            f"{machine.label} = instance {machine.id}, trouble: {machine.trouble or 'none'}: {states}{gone}"
        )
    print()
    print("what went wrong on purpose:", dict(world.market.faults), dict(world.counts))
    print("Temporal:", dict(world.server.counts))


def main() -> None:
    """Runs one seed; exit status 1 if an invariant was violated."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    seed = int(sys.argv[1])
    fault: BaseException | None = None
    with sealed(seed) as loop:

        async def whole() -> World:
            return World(scenario(seed))

        world = loop.run_until_complete(whole())
        for event in world.scenario.events:
            print(f"{event.at:9.1f} s  {event.what} {event.how or ''}")
        print(world.scenario.config, world.scenario.troubles, sep="\n", end="\n\n")
        try:
            loop.run_until_complete(world.live())
        except AssertionError as found:
            fault = found
        tell(world)
    if fault is not None:
        sys.exit(f"\nseed {seed}: {fault}")
    print(f"\nseed {seed}: nothing happened that must not happen")


if __name__ == "__main__":
    main()
