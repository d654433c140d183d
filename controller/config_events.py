"""Changes that operators ask for, checked before. Each function returns why a new plan is due; empty: none is."""

from collections.abc import Collection
from dataclasses import replace

from controller.state import EndpointStateBook
from policy.planning.rolling_update import UPDATING
from policy.state.operator_actions import ask
from policy.state.worker import Goal
from stoker_wire.control import WorkerChange
from stoker_wire.endpoint import EndpointPatch
from stoker_wire.workergroup import Workergroup


def config(book: EndpointStateBook, patch: EndpointPatch, now: float) -> str:
    """Changes the config; the result is validated as a whole (pydantic's ValidationError)."""
    before = book.record.config
    after = before.patched(patch)
    had, has = before.model_dump(mode="json"), after.model_dump(mode="json")
    changed = {name: value for name, value in has.items() if value != had[name]}
    if not changed:
        return ""
    book.record.config = after
    words = ", ".join(f"{name} = {value}" for name, value in changed.items())
    book.log.note(now, "config", f"changed: {words}")
    return "the config changed"


def set_workergroup(book: EndpointStateBook, group: Workergroup, now: float) -> str:
    """Adds or replaces a workergroup. If its template or launch changes, its revision goes up."""
    record = book.record
    before = book.workergroup(group.id)
    if before is None:
        record.workergroups.append(group)
        _note(book, now, "workergroup added", group.id)
        return "a workergroup was added"
    # A change of limits may come without the revision. The revision never goes down; a new launch raises it.
    due = before.revision + (_runs(before) != _runs(group))
    group = group.model_copy(update={"revision": max(group.revision, due)})
    if before == group:
        return ""
    record.workergroups = [group if old.id == group.id else old for old in record.workergroups]
    book.offers.pop(group.id, None)
    _note(book, now, f"workergroup changed, revision {group.revision}", group.id)
    return "a workergroup changed"


def remove_workergroup(book: EndpointStateBook, group: Workergroup, now: float) -> str:
    """Removes the workergroup; its workers are released by the next plans."""
    book.record.workergroups = [each for each in book.record.workergroups if each.id != group.id]
    book.offers.pop(group.id, None)
    _note(book, now, "workergroup removed", group.id)
    return "a workergroup was removed"


def update_workers(book: EndpointStateBook, group: Workergroup, now: float) -> str:
    """Starts a rolling update: the workergroup's revision goes up, so all its workers are outdated."""
    return set_workergroup(book, group.model_copy(update={"revision": group.revision + 1}), now)


def cancel_update(book: EndpointStateBook, group: Workergroup, now: float) -> str:
    """Ends a rolling update: outdated workers stay as they are. A worker whose update has begun finishes it."""
    kept = []
    for worker in list(book.record.workers.values()):
        outdated = worker.workergroup_id == group.id and worker.revision < group.revision
        if not outdated or worker.operation == "update" or worker.state in UPDATING:
            continue
        stays = worker.drain is None or worker.drain.goal is not Goal.UPDATE
        book.record.workers[worker.launch_id] = worker.replace(
            revision=group.revision, drain=worker.drain if stays else None
        )
        kept.append(worker.launch_id)
    words = f"update to revision {group.revision} cancelled: {len(kept)} workers are kept as they are"
    _note(book, now, words, group.id)
    return "an update was cancelled"


def change_worker(book: EndpointStateBook, change: WorkerChange, now: float) -> str:
    """Records what an operator asked of a worker; the next plan carries it out."""
    worker = book.record.workers[change.launch_id]
    asked = ask(worker, change.action)
    if asked is worker:
        return ""
    book.record.workers[worker.launch_id] = asked
    said = f"an operator asked to {change.action.value} it while it was {worker.state.words}"
    book.note_worker(worker, now, "config", said)
    return f"an operator asked to {change.action.value} a worker"


def blocked_hosts(book: EndpointStateBook, machine_ids: Collection[int]) -> tuple[int, ...]:
    """The hosts among these that are not rented because something failed on them; none given: all such hosts."""
    failed = (each.machine_id for each in book.record.learned.failed_hosts)
    return tuple(sorted(each for each in failed if not machine_ids or each in machine_ids))


def unblock_hosts(book: EndpointStateBook, machine_ids: tuple[int, ...], now: float) -> str:
    """Removes the failures of these hosts."""
    if not machine_ids:
        return ""
    learned = book.record.learned
    kept = tuple(each for each in learned.failed_hosts if each.machine_id not in machine_ids)
    book.record.learned = replace(learned, failed_hosts=kept)
    said = f"{len(machine_ids)} hosts may be rented again"
    named = ", ".join(map(str, machine_ids[:10])) + (" …" if len(machine_ids) > 10 else "")
    book.log.note(now, "config", f"{said}: {named}", subject="hosts")
    return said


def rotate_key(book: EndpointStateBook, overlap_seconds: float, now: float) -> str:
    """Makes a new endpoint key valid; the previous one stays valid for the overlap."""
    record = book.record
    record.key_version += 1
    record.key_overlap_until = now + overlap_seconds if overlap_seconds else 0.0
    said = f"endpoint key rotated, version {record.key_version}"
    if overlap_seconds:
        said += f"; the key before is accepted for another {overlap_seconds:.0f} s"
    book.log.note(now, "config", said)
    return ""


def look_now(book: EndpointStateBook, _: None, now: float) -> str:
    """The marketplace told of a change: the next plan lists the instances."""
    book.record.look_asked_at = now
    return "the marketplace told of a change"


def delete(book: EndpointStateBook, why: str, now: float) -> str:
    """The next plans release every worker."""
    if not book.record.deleting:
        book.record.deleting = True
        book.log.note(now, "config", why)
    return "the endpoint is deleted"


def _note(book: EndpointStateBook, now: float, reason: str, group_id: int) -> None:
    book.log.note(now, "config", reason, subject=str(group_id), workergroup_id=group_id)


def _runs(group: Workergroup) -> tuple[object, ...]:
    return (group.template_hash, group.template_id, group.search_params, group.launch_args)
