"""What the queries answer, and what a deleted endpoint leaves behind."""

from dataclasses import dataclass, field
from typing import Any

from policy.fleet import Learned, Worker
from policy.plan import Targets, Wait
from workflows.publish import endpoint_state
from workflows.state import EndpointStateBook


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatus:
    """The `status` query: what an operator asks first."""

    name: str
    id: int
    state: str
    """`active`, `suspended`, `stopped` or `deleting`."""
    config: dict[str, Any]
    workers: dict[str, int]
    """How many workers in each state, by its printed name."""
    targets: Targets
    waits: tuple[Wait, ...] = ()
    load_per_second: float = 0.0
    queued_load: float = 0.0
    queued_requests: int = 0
    dollars_per_hour: float = 0.0
    dollars: float = 0.0
    look_again_at: float | None = None
    listed_at: float = 0.0
    under_way: tuple[str, ...] = ()
    """Operations whose results are still out."""
    learned: Learned = Learned()
    key_version: int = 1
    created_at: float = 0.0
    engines: tuple[str, ...] = ()
    """Engines that were heard of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The `costs` query. Dollars; the marketplace's bill also has bandwidth, which nobody tells us."""

    dollars: float = 0.0
    gpu_dollars: float = 0.0
    boot_dollars: float = 0.0
    storage_dollars: float = 0.0
    dollars_per_hour: float = 0.0
    by_worker: dict[str, float] = field(default_factory=dict)
    """$/h now, by launch id."""
    workers_rented: int = 0
    workers_destroyed: int = 0
    counted_until: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """The result of an endpoint's workflow: nothing of it is left on the marketplace."""

    endpoint_name: str
    workers_rented: int
    workers_destroyed: int
    dollars: float
    lived_seconds: float


def status(book: EndpointStateBook, under_way: tuple[str, ...], load_per_second: float) -> EndpointStatus:
    """The status now."""
    record = book.record
    counts: dict[str, int] = {}
    for worker in record.workers.values():
        counts[worker.state.printed] = counts.get(worker.state.printed, 0) + 1
    return EndpointStatus(
        name=book.name,
        id=book.id,
        state=endpoint_state(book),
        config=record.config.model_dump(mode="json"),
        workers=counts,
        targets=record.targets,
        waits=record.waits,
        load_per_second=load_per_second,
        queued_load=record.load.backlog_load,
        queued_requests=record.load.backlog_requests,
        dollars_per_hour=book.burn_dollars_per_hour(),
        dollars=record.spending.dollars,
        look_again_at=record.look_again_at,
        listed_at=record.listed_at,
        under_way=under_way,
        learned=record.learned,
        key_version=record.key_version,
        created_at=book.created_at,
        engines=tuple(record.engines),
    )


def costs(book: EndpointStateBook) -> Costs:
    """What it has cost and costs."""
    spending = book.record.spending
    return Costs(
        dollars=spending.dollars,
        gpu_dollars=spending.gpu_dollars,
        boot_dollars=spending.boot_dollars,
        storage_dollars=spending.storage_dollars,
        dollars_per_hour=book.burn_dollars_per_hour(),
        by_worker={w.launch_id: w.burn_dollars_per_hour for w in book.record.workers.values()},
        workers_rented=spending.workers_rented,
        workers_destroyed=spending.workers_destroyed,
        counted_until=spending.counted_until,
    )


def workers(book: EndpointStateBook) -> list[Worker]:
    """Every worker, in the order of their launches."""
    return list(book.record.workers.values())


def deleted(book: EndpointStateBook, now: float) -> Deleted:
    """The summary that an endpoint leaves."""
    spending = book.record.spending
    return Deleted(
        endpoint_name=book.name,
        workers_rented=spending.workers_rented,
        workers_destroyed=spending.workers_destroyed,
        dollars=round(spending.dollars, 6),
        lived_seconds=round(now - book.created_at, 3) if book.created_at else 0.0,
    )
