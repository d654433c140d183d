"""What an operation's result, or a listing of the marketplace, does to the record."""

from collections.abc import Iterable
from dataclasses import replace

from activities.messages import CreatedInstance, read_label
from policy.fleet import HostFailure, Worker
from policy.learn import learn_failure, remember_hosts
from policy.lifecycle import advance
from policy.tuning import Tuning
from stoker_wire.market import Instance, Offer
from stoker_wire.states import WorkerState
from workflows.options import LIST_LAG_SECONDS
from workflows.state import ENGINE_LIVE_SECONDS, EndpointStateBook

RETRY_SECONDS_MIN = 5.0
RETRY_SECONDS_MAX = 300.0

_TUNING = Tuning()
_NEW_STATES = frozenset({WorkerState.PENDING, WorkerState.CREATING, WorkerState.LOADING})


def created(book: EndpointStateBook, launch_id: str, made: CreatedInstance, now: float) -> None:
    """The marketplace accepted the launch."""
    book.record.pending_offers.pop(launch_id, None)
    worker = book.record.workers.get(launch_id)
    if worker is None:
        return
    worker = worker.but(
        operation="",
        failures=0,
        instance_id=made.instance_id,
        machine_id=made.machine_id or worker.machine_id,
        dollars_per_hour=made.dollars_per_hour,
        storage_dollars_per_hour=made.storage_dollars_per_hour,
    )
    if worker.state is WorkerState.PENDING:
        worker = advance(worker, WorkerState.CREATING, now)
    book.record.workers[launch_id] = worker
    spending = book.record.spending
    book.record.spending = replace(spending, workers_rented=spending.workers_rented + 1)
    how = "found its lost instance" if made.adopted else "rented instance"
    book.log.note(
        now,
        "worker",
        f"{how} {made.instance_id}: {worker.kind} at ${made.dollars_per_hour:.3f}/h",
        subject=launch_id,
        level=1,
        workergroup_id=worker.workergroup_id,
    )


def not_created(
    book: EndpointStateBook, launch_id: str, offer: Offer, kind: str, reason: str, now: float
) -> None:
    """The launch failed for good: the offer is remembered as failed for a while, the worker is forgotten."""
    record = book.record
    record.pending_offers.pop(launch_id, None)
    worker = record.workers.get(launch_id)
    if worker is None:
        return
    book.log.note(now, "fail", f"create: {reason}", subject=launch_id, workergroup_id=worker.workergroup_id)
    seconds = _TUNING.offer_gone_seconds if kind == "OfferGone" else _TUNING.host_failure_seconds
    remember_host(book, offer.machine_id, now + seconds, reason, now)
    found = book.offers.get(worker.workergroup_id)
    if found is not None:
        left = tuple(other for other in found.offers if other.id != offer.id)
        book.offers[worker.workergroup_id] = replace(found, offers=left)
    del record.workers[launch_id]


def succeeded(book: EndpointStateBook, launch_id: str, operation: str, now: float) -> None:
    """The marketplace did what was asked."""
    worker = book.record.workers.get(launch_id)
    if worker is None:
        return
    worker = worker.but(operation="", failures=0, retry_at=0.0)
    if operation == "destroy":
        spending = book.record.spending
        book.record.spending = replace(spending, workers_destroyed=spending.workers_destroyed + 1)
        forget(book, worker, now, "the marketplace confirms that it is gone")
        return
    if operation == "stop":
        worker = worker.but(state=_stopped_state(worker), since=now, drain=None)
    elif operation == "update":
        group = book.workergroup(worker.workergroup_id)
        worker = worker.but(revision=group.revision if group else worker.revision)
        if worker.state is WorkerState.UPDATE_REBOOTING:
            worker = worker.but(state=WorkerState.UPDATE_STARTING, since=now)
    book.record.workers[launch_id] = worker


def failed(
    book: EndpointStateBook, worker: Worker, before: Worker, kind: str, reason: str, now: float
) -> None:
    """The operation failed: the worker is what it was, and is left alone for a while."""
    current = book.record.workers.get(worker.launch_id)
    if current is None:
        return
    note = f"{worker.operation}: {reason}"
    book.log.note(now, "fail", note, subject=worker.launch_id, workergroup_id=worker.workergroup_id)
    if kind == "InstanceGone":
        forget(book, current, now, "the marketplace does not know it any more")
        return
    wait = min(RETRY_SECONDS_MIN * 2.0**current.failures, RETRY_SECONDS_MAX)
    undone = current.but(operation="", failures=current.failures + 1, retry_at=now + wait)
    if current.state is worker.state and worker.operation != "destroy":
        undone = undone.but(state=before.state, since=before.since)
    book.record.workers[worker.launch_id] = undone


def listed(
    book: EndpointStateBook, instances: Iterable[Instance], asked_at: float, now: float
) -> list[tuple[int, str]]:
    """Reconciles with the marketplace's own list; answers (instance id, reason) of what has to be destroyed."""
    record = book.record
    record.listed_at = now
    unknown: list[tuple[int, str]] = []
    seen: dict[str, Instance] = {}
    for instance in instances:
        label = read_label(instance.label)
        if label is None or label[0] != book.name:
            continue
        worker = record.workers.get(label[1])
        if worker is None:
            unknown.append((instance.id, "it carries this endpoint's label and no worker of it is known"))
        elif worker.instance_id is None:
            # Its create call has not answered yet: it will adopt it, or the next listing finds it without a worker.
            seen[label[1]] = instance
        elif worker.instance_id != instance.id:
            unknown.append((instance.id, f"launch {label[1]} has instance {worker.instance_id} already"))
        else:
            seen[label[1]] = instance
    for launch_id, worker in list(record.workers.items()):
        instance_or_none = seen.get(launch_id)
        if instance_or_none is not None:
            record.workers[launch_id] = _as_listed(worker, instance_or_none, now)
        elif _is_missing(worker, asked_at):
            _missing(book, worker, now)
    return unknown


def forget(book: EndpointStateBook, worker: Worker, now: float, reason: str) -> None:
    """Takes the worker out of the fleet."""
    book.record.workers.pop(worker.launch_id, None)
    book.record.pending_offers.pop(worker.launch_id, None)
    book.log.note(
        now, "worker", f"left: {reason}", subject=worker.launch_id, workergroup_id=worker.workergroup_id
    )


def remember_host(book: EndpointStateBook, machine_id: int, until: float, reason: str, now: float) -> None:
    """Writes down that a machine let us down; what has expired is dropped."""
    if machine_id:
        failure = HostFailure(machine_id=machine_id, until=until, reason=reason[:160])
        book.record.learned = remember_hosts(book.record.learned, (failure,), now)


def _stopped_state(worker: Worker) -> WorkerState:
    return WorkerState.INACTIVE if worker.loaded_once else WorkerState.CREATED


def _is_missing(worker: Worker, asked_at: float) -> bool:
    """Whether its absence from a listing means that it is gone: it should have been in it, and it is not heard of."""
    if worker.instance_id is None or worker.operation:
        return False
    if worker.state in _NEW_STATES and asked_at - worker.since < 2 * LIST_LAG_SECONDS:
        return False
    heard = worker.reported_at is not None and asked_at - worker.reported_at < ENGINE_LIVE_SECONDS
    return not heard


def _missing(book: EndpointStateBook, worker: Worker, now: float) -> None:
    said = f", it said {worker.market_status!r} last" if worker.market_status else ""
    if not worker.loaded_once:
        book.record.learned = learn_failure(book.record.learned, worker)
    if worker.state is not WorkerState.DESTROYING:
        remember_host(
            book, worker.machine_id, now + _TUNING.host_failure_seconds, "its instance vanished", now
        )
    forget(book, worker, now, f"vanished from the marketplace{said}")


def _as_listed(worker: Worker, instance: Instance, now: float) -> Worker:
    status = instance.actual_status or ""
    worker = worker.but(market_status=status)
    if worker.instance_id is None or worker.operation:
        return worker
    if worker.state is WorkerState.CREATING and status in {"loading", "running"}:
        return advance(worker, WorkerState.LOADING, now)
    return worker
