"""Updates the record after an operation ended or the marketplace listed its instances."""

from dataclasses import replace

from controller.effects import CreatedInstance, Done, Failed, ListedInstances, Result
from controller.state import EndpointStateBook
from policy.state.billing import settle
from policy.state.reconcile import fold_listing
from policy.state.worker import Worker
from policy.state.worker_events import FoldResult, fold_instance_gone, fold_operation_result
from stoker_wire.states import WorkerState

_ERROR_KINDS = {
    "OfferGone": "offer_gone",
    "InstanceGone": "instance_gone",
    "Refused": "refused",
    "Unauthorised": "refused",
}
"""Final marketplace errors, by the policy's name. Any other error is temporary and is retried."""


def ended(
    book: EndpointStateBook,
    worker: Worker,
    result: Result,
    now: float,
    *,
    revision: int | None = None,
) -> None:
    """The operation of `worker` (as it was when it began) ended."""
    made = result if isinstance(result, CreatedInstance) else None
    failed = result if isinstance(result, Failed) else None
    confirmed = isinstance(result, Done) and result.confirmed
    launch_id, operation = worker.launch_id, worker.operation
    if operation == "create":
        book.record.pending_offers.pop(launch_id, None)
    current = book.record.workers.get(launch_id)
    if current is None:
        return
    book.count_dollars(now)
    learned = book.record.learned
    if made is not None:
        book.record.workers_rented += 1
        current = current.replace(
            machine_id=made.machine_id or current.machine_id,
            dollars_per_hour=made.dollars_per_hour or current.dollars_per_hour,
            storage_dollars_per_hour=made.storage_dollars_per_hour,
        )
        how = "found the instance of a lost answer" if made.adopted else "rented"
        line = f"{how}: instance {made.instance_id}, {current.kind}, ${current.dollars_per_hour:.3f}/h"
        book.note_worker(current, now, "worker", line, level=1)
    if confirmed and operation == "destroy":
        folded = fold_instance_gone(current, "released", learned)
    else:
        folded = fold_operation_result(
            current,
            operation,
            now=now,
            learned=learned,
            ok=failed is None,
            error_kind=_ERROR_KINDS.get(failed.kind, failed.kind) if failed else "",
            error=failed.text if failed else "",
            instance_id=made.instance_id if made else None,
            revision=revision,
            tuning=book.tuning,
        )
    if operation == "create" and failed:
        _drop_offer(book, current)
    keep(book, current, folded, now, kind="fail" if failed else "worker", level=0 if failed else 1)
    for warning in made.warnings if made else ():
        book.note_worker(current, now, "fail", f"warning: {warning}")
    stopped = book.record.workers.get(launch_id)
    if confirmed and operation == "stop" and stopped is not None:
        state = WorkerState.INACTIVE if stopped.loaded_once else WorkerState.CREATED
        book.record.workers[launch_id] = stopped.replace(state=state, since=now, drain=None, retry_at=0.0)


def listed(
    book: EndpointStateBook, found: ListedInstances, asked_at: float, now: float, *, label_prefix: str
) -> str:
    """Reconcile the record with the marketplace's list: remove workers that are gone; add unknown instances so that
    they are destroyed. Charges in the listing correct the ledger.

    Returns why a plan is due; empty if the listing changed nothing significant.
    """
    record = book.record
    book.count_dollars(now)
    listing = fold_listing(
        record.workers.values(),
        found.instances,
        gone=found.gone,
        shown=found.shown,
        now=now,
        asked_at=asked_at,
        label_prefix=label_prefix,
        learned=record.learned,
    )
    record.workers = {worker.launch_id: worker for worker in (*listing.workers, *listing.orphans)}
    record.learned = listing.learned
    record.listed_at = asked_at
    book.count_dollars(now)  # removed workers are billed up to now
    if found.charges is not None:
        record.ledger = settle(record.ledger, found.charges, record.workers.values(), asked_at=asked_at)
    record.workers_gone += len(listing.gone)
    for worker in listing.gone:
        record.pending_offers.pop(worker.launch_id, None)
    for launch_id, line in listing.lines:
        level = 0 if listing.gone or listing.orphans else 1
        book.log.note(now, "worker", line, subject=launch_id, level=level)
    return "the marketplace's list brought news" if listing.material else ""


def keep(
    book: EndpointStateBook,
    before: Worker,
    folded: FoldResult,
    now: float,
    *,
    kind: str = "worker",
    level: int = 1,
) -> None:
    """Stores the policy's result for one worker and logs its lines."""
    record = book.record
    record.learned = folded.learned
    if folded.worker is None:
        record.workers.pop(before.launch_id, None)
        record.pending_offers.pop(before.launch_id, None)
        record.workers_gone += before.instance_id is not None
    else:
        record.workers[before.launch_id] = folded.worker
    for line in folded.lines:
        book.note_worker(before, now, kind, line, level=level)


def _drop_offer(book: EndpointStateBook, worker: Worker) -> None:
    """Removes an offer that could not be rented from the search result that the planner uses."""
    found = book.offers.get(worker.workergroup_id)
    if found is not None:
        left = tuple(offer for offer in found.offers if offer.id != worker.offer_id)
        book.offers[worker.workergroup_id] = replace(found, offers=left)
