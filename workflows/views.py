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
    by_state: dict[str, float] = field(default_factory=dict)
    """Dollars spent, by the state that the workers were in (as the API says it)."""
    dollars_per_hour: float = 0.0
    by_worker: dict[str, float] = field(default_factory=dict)
    """$/h now, by launch id."""
    workers_rented: int = 0
    workers_gone: int = 0
    counted_until: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """The result of an endpoint's workflow: nothing of it is left on the marketplace."""

    endpoint_name: str
    workers_rented: int
    workers_gone: int
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
        dollars=record.ledger.dollars,
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
    record = book.record
    return Costs(
        dollars=record.ledger.dollars,
        by_state=dict(record.ledger.by_state),
        dollars_per_hour=book.burn_dollars_per_hour(),
        by_worker={w.launch_id: w.burn_dollars_per_hour for w in record.workers.values()},
        workers_rented=record.workers_rented,
        workers_gone=record.workers_gone,
        counted_until=record.ledger.until or 0.0,
    )


def workers(book: EndpointStateBook) -> list[Worker]:
    """Every worker, in the order of their launches."""
    return list(book.record.workers.values())


def deleted(book: EndpointStateBook, now: float) -> Deleted:
    """The summary that an endpoint leaves."""
    record = book.record
    return Deleted(
        endpoint_name=book.name,
        workers_rented=record.workers_rented,
        workers_gone=record.workers_gone,
        dollars=round(record.ledger.dollars, 6),
        lived_seconds=round(now - book.created_at, 3) if book.created_at else 0.0,
    )
