"""Endpoints that have run for hours: their carried state, and their rented machines."""

import asyncio
import random
import time
from dataclasses import dataclass
from enum import StrEnum

from temporalio.client import Client

from benchmarks.scale.fake_workers import MODEL_SECONDS, PERF
from benchmarks.scale.market import DOLLARS_PER_HOUR, KIND, TEMPLATE_HASH, Marketplace, Rented, address_of
from controller.state import EndpointStateBook
from market.ownership import Owner
from policy.state.observation import Memory
from policy.state.worker import KindRecord, MachineStats, Worker
from policy.tuning import DEFAULT_TUNING
from stoker_wire.control import TASK_QUEUE, WORKFLOW_TYPE, EndpointSpec, workflow_id
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.security.token import mint_endpoint_key
from stoker_wire.states import WorkerState
from stoker_wire.workergroup import Workergroup

STARTS_PER_SECOND = 40
"""Workflow starts per second; at a higher rate the server's task queues grow."""
LOOK_SECONDS = DEFAULT_TUNING.listing_seconds_steady
"""The listings of the endpoints are spread over this time, seconds."""


class Part(StrEnum):
    """The role of an endpoint during the measurement."""

    CALM = "calm"
    """Every worker is ready without requests, until a burst needs one more machine."""
    BUSY = "busy"
    """Nearly every worker is ready, with requests all the time."""
    ASLEEP = "asleep"
    """Every worker is cold, until one request wakes it."""


@dataclass(slots=True)
class Seeded:
    """One endpoint."""

    name: str
    id: int
    part: Part
    key: str
    rented: list[Rented]
    running: list[Rented]


def part_of(number: int) -> Part:
    """Eight of ten endpoints are calm, one is busy, one is at zero."""
    return {0: Part.BUSY, 1: Part.ASLEEP}.get(number % 10, Part.CALM)


def config_of(part: Part, workers: int) -> EndpointConfig:
    """Its parameters."""
    common = {"cold_mult": 1.0, "min_workers": workers, "max_workers": workers + 2, "target_util": 1.0}
    if part is Part.ASLEEP:
        return EndpointConfig.model_validate(common | {"min_load": 0.0, "inactivity_timeout": 30.0})
    hot = workers - (part is Part.BUSY)
    return EndpointConfig.model_validate(common | {"min_load": PERF * hot, "target_queue_time": 4.0})


def prepare(
    number: int, part: Part, workers: int, market: Marketplace, secret: bytes, deployment: str
) -> tuple[Seeded, EndpointSpec]:
    """An endpoint and the input of its workflow."""
    name, now = f"scale-{number}", time.time()
    chance = random.Random(number)
    config = config_of(part, workers)
    cold = {Part.CALM: 0, Part.BUSY: 1, Part.ASLEEP: workers}[part]
    group = Workergroup(
        id=number + 1,
        template_hash=TEMPLATE_HASH,
        search_params=f"gpu_name={KIND.replace(' ', '_')}",
        test_workers=0,
    )
    book = EndpointStateBook(
        EndpointSpec(
            endpoint_name=name,
            endpoint_id=number + 1,
            config=config,
            workergroups=(group,),
            created_at=now - 86_400,
        )
    )
    seeded = Seeded(name, number + 1, part, mint_endpoint_key(secret, number + 1, 1), [], [])
    for n in range(workers):
        launch_id = f"{number:06x}{n:06x}"
        running = n >= cold
        one = market.put(Owner(deployment, name, launch_id).label, running=running)
        seeded.rented.append(one)
        if running:
            seeded.running.append(one)
        book.record.workers[launch_id] = _worker(group.id, launch_id, one, now, running=running)
    record = book.record
    record.learned = MachineStats(
        kinds=(
            KindRecord(
                workergroup_id=group.id, kind=f"1x {KIND}", perf=PERF, dollars_per_hour=DOLLARS_PER_HOUR, samples=workers,
                boot_seconds=30.0, start_seconds=MODEL_SECONDS + 1, boots=workers, starts=5,
            ),
        )
    )  # fmt: skip
    record.listed_at = now - chance.uniform(0, LOOK_SECONDS)
    record.memory = Memory(grew_at=now - 3600)
    record.workers_rented = workers
    return seeded, book.spec()


def _worker(group_id: int, launch_id: str, one: Rented, now: float, *, running: bool) -> Worker:
    return Worker(
        launch_id=launch_id,
        workergroup_id=group_id,
        revision=1,
        kind=f"1x {KIND}",
        state=WorkerState.READY if running else WorkerState.INACTIVE,
        since=now - 3600,
        launched_at=now - 7200,
        machine_id=one.machine_id,
        instance_id=one.id,
        dollars_per_hour=DOLLARS_PER_HOUR,
        storage_dollars_per_hour=0.0033,
        perf=PERF,
        perf_estimate=PERF,
        url=f"http://{address_of(one.id)}:3000",
        address=f"{address_of(one.id)}:3000",
        reported_at=now if running else now - 3600,
        loaded_once=True,
        market_status="running" if running else "stopped",
    )


async def start_all(client: Client, specs: list[EndpointSpec]) -> None:
    """Start the workflows, paced."""
    began = time.monotonic()
    turn = asyncio.Semaphore(8)

    async def one(spec: EndpointSpec) -> None:
        async with turn:
            await client.start_workflow(
                WORKFLOW_TYPE, spec, id=workflow_id(spec.endpoint_name), task_queue=TASK_QUEUE
            )

    for number, spec in enumerate(specs):
        wait = began + number / STARTS_PER_SECOND - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(one(spec))
        _TASKS.add(task)
        task.add_done_callback(_TASKS.discard)
    while _TASKS:
        await asyncio.gather(*_TASKS)


_TASKS: set[asyncio.Task[None]] = set()
