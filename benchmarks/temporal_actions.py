"""Temporal events and actions per hour of a steady and of an idle endpoint, counted in real histories.

    python -m benchmarks.temporal_actions

The workflow runs unchanged on a time-skipping server; the engine's own `MetricsBatcher` decides when a batch of
metrics is sent. The actions that Temporal Cloud bills are counted by event type (docs.temporal.io/cloud/actions):
start and continue-as-new, signal, update, timer, activity, upserted search attributes, and each workflow task that
ran a local activity. Queries and retries are not in a history; a healthy endpoint makes none of its own.
"""

import asyncio
import contextlib
import logging
import os
import platform
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import structlog
from temporalio.api.enums.v1 import EventType, IndexedValueType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.testing import WorkflowEnvironment

from policy.signalling.metrics_batcher import Gauges, MetricsBatcher
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.messages import SEARCH_ATTRIBUTES, MetricsBatch
from stoker_wire.states import WorkerState
from tests.workflows.world import World, group, make_market, make_workers
from workflows.temporal_worker.converter import data_converter

STEP_SECONDS = 5.0
REQUEST_LOAD = 10.0
SETTLE_HOURS = 1.5
COUNTED_HOURS = 1.0
STEADY_TARGET, IDLE_TARGET = 10_000, 500
"""Bound on actions per day."""

_BILLED = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED: "start or continue-as-new",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED: "signal",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED: "update",
    EventType.EVENT_TYPE_TIMER_STARTED: "timer",
    EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED: "activity",
    EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES: "search attributes",
}
_TYPES = {
    "Keyword": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "Int": IndexedValueType.INDEXED_VALUE_TYPE_INT,
    "Double": IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE,
    "Datetime": IndexedValueType.INDEXED_VALUE_TYPE_DATETIME,
}


@dataclass(frozen=True)
class Case:
    """One endpoint's circumstances."""

    name: str
    config: EndpointConfig
    load: float = 0.0
    poisson: bool = False
    workers: int = 0
    target: int = STEADY_TARGET


@dataclass(frozen=True)
class Count:
    """Events and actions of one hour of history."""

    case: Case
    events: int
    actions: Counter[str]
    ready: int
    bytes_per_event: float


FLEET = EndpointConfig(min_load=0, min_workers=10, max_workers=10, cold_mult=1, inactivity_timeout=600)
CASES = (
    Case("10 ready workers, even load", FLEET, load=850, workers=10),
    Case("10 ready workers, Poisson load", FLEET, load=850, poisson=True, workers=10),
    Case("10 cold workers, no load", FLEET, target=IDLE_TARGET),
    Case("no workers, no load", EndpointConfig(min_load=0, min_workers=0), target=IDLE_TARGET),
)


async def count(case: Case, *, settle_hours: float = SETTLE_HOURS, hours: float = COUNTED_HOURS) -> Count:
    """Runs the settling time, then counts."""
    async with _world() as world:
        await world.start(case.config, [group(search_params="gpu_name=RTX_4090", test_workers=0)])
        batcher, chance = MetricsBatcher(world.now), random.Random(1)
        await live(world, case, batcher, chance, settle_hours * 3600)
        since = world.now
        await live(world, case, batcher, chance, hours * 3600)
        histories = await world.histories()
        events = [e for history in histories for e in history.events if e.event_time.seconds >= since]
        memo = await world.memo()
        ready = sum(member.s is WorkerState.READY for member in memo.members)
        return Count(
            case,
            len(events),
            _actions(events),
            ready,
            sum(e.ByteSize() for e in events) / max(len(events), 1),
        )


async def live(
    world: World,
    case: Case,
    batcher: MetricsBatcher,
    chance: random.Random,
    seconds: float,
    *,
    step: float = STEP_SECONDS,
    request_load: float = REQUEST_LOAD,
) -> None:
    """Advances time in steps: requests arrive, workers report, and the metrics batcher decides which metrics are
    sent."""
    for _ in range(round(seconds / step)):
        mean = case.load * step / request_load
        requests = round(chance.gauss(mean, mean**0.5)) if case.poisson else round(mean)
        for _ in range(requests):
            batcher.record_arrival(request_load, world.now + chance.random() * step)
        await world.pass_time(step)
        memo = await world.memo()
        workers = world.reports(memo, case.load)
        level = Gauges(
            workers=len(memo.members),
            workers_cold=sum(member.s is WorkerState.INACTIVE for member in memo.members),
            inactivity_timeout=case.config.inactivity_timeout,
        )
        if [worker for worker in workers if worker.condition != "ready" or worker.drain_seen]:
            batcher.mark_changed()
        why = batcher.due(level, world.now)
        if why is None:
            continue
        for window in batcher.take_windows(level, world.now):
            await world.signal_metrics(
                MetricsBatch(
                    engine_id="engine",
                    sequence=world.next_sequence(),
                    sent_at=window.ended_at,
                    window_s=window.seconds,
                    arrived_load=window.load,
                    arrived_requests=window.requests,
                    last_request_at=batcher.last_request_at,
                    urgent=why,
                    workers=tuple(workers),
                )
            )


def _actions(events: list[HistoryEvent]) -> Counter[str]:
    billed: Counter[str] = Counter()
    tasks: set[int] = set()
    for event in events:
        if event.event_type in _BILLED:
            billed[_BILLED[event.event_type]] += 1
        elif event.event_type == EventType.EVENT_TYPE_MARKER_RECORDED:
            tasks.add(event.marker_recorded_event_attributes.workflow_task_completed_event_id)
    billed["planner (local activity)"] = len(tasks)
    return billed


@contextlib.asynccontextmanager
async def _world() -> AsyncIterator[World]:
    env = await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(Path(sys.executable).parent / "temporal-test-server"),
        data_converter=data_converter,
    )
    async with env, contextlib.AsyncExitStack() as stack:
        attributes = {name: _TYPES[kind] for name, kind in SEARCH_ATTRIBUTES.items()}
        await env.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(search_attributes=attributes, namespace="default")
        )
        world = World(env, env.client, None)  # type: ignore[arg-type]
        world.market = make_market(world.clock)
        for worker in make_workers(env.client, world.market):
            await stack.enter_async_context(worker)
        yield world


def table(counts: list[Count]) -> str:
    """The counts as Markdown."""
    kinds = sorted({kind for each in counts for kind in each.actions})
    head = ["endpoint", "ready", "events/h", "actions/h", "actions/day", "allowed/day", *kinds]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for each in counts:
        actions = sum(each.actions.values()) / COUNTED_HOURS
        cells = [
            each.case.name,
            each.ready,
            round(each.events / COUNTED_HOURS),
            round(actions),
            round(actions * 24),
            each.case.target,
            *(each.actions[kind] for kind in kinds),
        ]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


async def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    counts = [await count(case) for case in CASES]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; one engine, one hour counted\n"
    )
    print(table(counts))


if __name__ == "__main__":
    asyncio.run(main())
