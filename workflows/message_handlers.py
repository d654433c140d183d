"""What signals and updates do to the record. Each function answers why a new plan is due, or nothing."""

from collections.abc import Collection
from dataclasses import replace

from policy.capacity.supply import holds_requests
from policy.load import history as load_windows
from policy.planning.rolling_update import UPDATING
from policy.state.lifecycle import InvalidTransition
from policy.state.worker import Goal, Worker
from policy.state.worker_events import fold_metrics
from stoker_wire.endpoint import EndpointPatch
from stoker_wire.messages import MetricsBatch, WorkerMetrics
from stoker_wire.workergroup import Workergroup
from workflows.drain_handshake import TICKETS_SECONDS, open_tickets
from workflows.engine_clocks import told_in_time
from workflows.operation_results import keep
from workflows.state import ENGINE_ENTRIES_KEPT, ENGINES_KEPT, EndpointStateBook, EngineRecord, Record

RATE_SECONDS = 30.0
"""Arrivals are compared over so long: shorter is noise."""
RATE_MOVED = 0.15
"""A level that moved by a seventh may change what is wanted; less is inside every target_util's spare."""


def metrics(book: EndpointStateBook, batch: MetricsBatch, now: float) -> str:
    """Folds one engine's batch in; an older or doubled one is dropped."""
    record = book.record
    before = record.engines.get(batch.engine_id)
    if before is not None and batch.sequence <= before.sequence:
        return ""
    batch = told_in_time(batch, now)
    record.engines.pop(batch.engine_id, None)
    record.engines[batch.engine_id] = _engine(batch, record.workers.keys(), now)
    _forget_engines(record, now)
    record.listening_since = max(record.listening_since, batch.listening_since)
    queued_before = record.load.backlog_load
    record.load = load_windows.fold(
        record.load,
        engine_id=batch.engine_id,
        sequence=batch.sequence,
        at=batch.sent_at,
        window_s=batch.window_s,
        load=batch.arrived_load,
        requests=batch.arrived_requests,
        queued_load=batch.queued_load,
        queued_requests=batch.queued_requests,
        oldest_wait_s=batch.oldest_wait_s,
        last_request_at=batch.last_request_at,
    )
    news = [_worker(book, told, now) for told in batch.workers]
    reasons = [batch.urgent, *news, _queue(book, queued_before), _level(book)]
    return next((reason for reason in reasons if reason), "")


def config(book: EndpointStateBook, patch: EndpointPatch, now: float) -> str:
    """Changes the config; the result is validated as a whole (pydantic's ValidationError)."""
    before = book.record.config
    after = before.patched(patch)
    changed = {
        name: value
        for name, value in after.model_dump(mode="json").items()
        if value != before.model_dump(mode="json")[name]
    }
    if not changed:
        return ""
    book.record.config = after
    words = ", ".join(f"{name} = {value}" for name, value in changed.items())
    book.log.note(now, "config", f"changed: {words}")
    return "the config changed"


def set_workergroup(book: EndpointStateBook, group: Workergroup, now: float) -> str:
    """Adds the workergroup, or replaces the one of its id; what runs changes with its revision."""
    record = book.record
    before = book.workergroup(group.id)
    if before is None:
        record.workergroups.append(group)
        book.log.note(now, "config", "workergroup added", subject=str(group.id), workergroup_id=group.id)
        return "a workergroup was added"
    # Who changes a bound need not know the revision: it only ever goes up, and at once when what runs changes.
    due = before.revision + (_runs(before) != _runs(group))
    group = group.model_copy(update={"revision": max(group.revision, due)})
    if before == group:
        return ""
    record.workergroups = [group if old.id == group.id else old for old in record.workergroups]
    book.offers.pop(group.id, None)
    book.log.note(
        now,
        "config",
        f"workergroup changed, revision {group.revision}",
        subject=str(group.id),
        workergroup_id=group.id,
    )
    return "a workergroup changed"


def remove_workergroup(book: EndpointStateBook, workergroup_id: int, now: float) -> str:
    """Removes the workergroup; its workers are released by the next plans."""
    if book.workergroup(workergroup_id) is None:
        return ""
    book.record.workergroups = [group for group in book.record.workergroups if group.id != workergroup_id]
    book.offers.pop(workergroup_id, None)
    book.log.note(
        now, "config", "workergroup removed", subject=str(workergroup_id), workergroup_id=workergroup_id
    )
    return "a workergroup was removed"


def update_workers(book: EndpointStateBook, workergroup_id: int, now: float) -> str:
    """A rolling update on demand: the workergroup's revision goes up, so that every worker of it is due."""
    group = book.workergroup(workergroup_id)
    if group is None:
        return ""
    return set_workergroup(book, group.model_copy(update={"revision": group.revision + 1}), now)


def cancel_update(book: EndpointStateBook, workergroup_id: int, now: float) -> str:
    """Ends a rolling update: what is not updated yet is kept as it is. An update that has begun is finished."""
    group = book.workergroup(workergroup_id)
    if group is None:
        return ""
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
    book.log.note(
        now,
        "config",
        f"update to revision {group.revision} cancelled: {len(kept)} workers are kept as they are",
        subject=str(group.id),
        workergroup_id=group.id,
    )
    return "an update was cancelled"


def unblock_hosts(book: EndpointStateBook, machine_ids: tuple[int, ...], now: float) -> tuple[int, ...]:
    """Forgets the failures of these hosts, or of all; answers which were forgotten."""
    known = book.record.learned.failed_hosts
    gone = [each for each in known if not machine_ids or each.machine_id in machine_ids]
    if not gone:
        return ()
    kept = tuple(each for each in known if each not in gone)
    book.record.learned = replace(book.record.learned, failed_hosts=kept)
    freed = tuple(sorted(each.machine_id for each in gone))
    named = ", ".join(map(str, freed[:10])) + (" …" if len(freed) > 10 else "")
    book.log.note(now, "config", f"{len(freed)} hosts may be rented again: {named}", subject="hosts")
    return freed


def _runs(group: Workergroup) -> tuple[object, ...]:
    return (group.template_hash, group.template_id, group.search_params, group.launch_args)


def _forget_engines(record: Record, now: float) -> None:
    """Bounds what is kept of engines: the oldest of too many, and tickets that have run out."""
    for stale in list(record.engines)[:-ENGINES_KEPT]:
        del record.engines[stale]
    for engine in list(record.engines.values()):
        if engine.tickets and now - engine.heard_at > TICKETS_SECONDS:
            record.engines[engine.engine_id] = replace(engine, tickets={})
    kept = sum(len(engine.tickets) + len(engine.drains_seen) for engine in record.engines.values())
    for engine in list(record.engines.values())[:-1]:
        if kept <= ENGINE_ENTRIES_KEPT:
            return
        kept -= len(engine.tickets) + len(engine.drains_seen)
        del record.engines[engine.engine_id]


def _engine(batch: MetricsBatch, known: Collection[str], now: float) -> EngineRecord:
    """The engine after its batch, as far as that concerns workers on record.

    An engine names each worker that drains or has open tickets in every batch: one without them says that there are
    none. So what it said before is not kept, or a worker that drains a second time would pass for seen already.
    """
    return EngineRecord(
        engine_id=batch.engine_id,
        sequence=batch.sequence,
        heard_at=now,
        tickets={
            worker.launch_id: worker.tickets_open
            for worker in batch.workers
            if worker.tickets_open and worker.launch_id in known
        },
        drains_seen=tuple(
            dict.fromkeys(
                each.launch_id for each in batch.workers if each.drain_seen and each.launch_id in known
            )
        ),
        left=batch.stopping,
    )


def _worker(book: EndpointStateBook, told: WorkerMetrics, now: float) -> str:
    record = book.record
    worker = record.workers.get(told.launch_id)
    if worker is None or worker.instance_id not in {None, told.instance_id}:
        return ""
    tickets = open_tickets(book, told.launch_id, now)
    try:
        folded = fold_metrics(
            worker,
            told,
            now=now,
            learned=record.learned,
            tickets_open=tickets,
            fleet=record.workers.values(),
        )
    except InvalidTransition as fault:
        book.log.note(now, "worker", str(fault), subject=told.launch_id, level=2)
        return ""
    keep(book, worker, folded, now)
    if folded.lines:
        return folded.lines[0]
    after = folded.worker
    if after is None:
        return ""
    if after.drain is not None and _emptied(worker, after):
        return f"draining worker {told.launch_id} moved on"
    if worker.load > 0 and after.load <= 0 and _is_idle(book):
        return f"worker {told.launch_id} finished the last request: the inactivity timeout begins"
    if (after.suspect_since is None) != (worker.suspect_since is None):
        return f"worker {told.launch_id} is suspected, or is not any more"
    return ""


def _is_idle(book: EndpointStateBook) -> bool:
    """Whether nothing runs and the timeout counts from now on. Without a plan now, no timer is set for its end."""
    timeout = book.record.config.inactivity_timeout
    if timeout is None or timeout <= 0:
        return False
    return not any(holds_requests(worker) for worker in book.record.workers.values())


def _emptied(before: Worker, after: Worker) -> bool:
    was = (before.in_flight, before.tickets_open > 0, before.load > 0)
    return was != (after.in_flight, after.tickets_open > 0, after.load > 0)


def _queue(book: EndpointStateBook, before: float) -> str:
    queued = book.record.load.backlog_load
    if queued > 0 and (before <= 0 or queued > before * (1 + RATE_MOVED)):
        return f"{queued:.4g} load waits"
    return "the queue is empty" if before > 0 and queued <= 0 else ""


def _level(book: EndpointStateBook) -> str:
    level = load_windows.rate(book.record.load, RATE_SECONDS)
    if level is None:
        return ""
    planned = book.record.load_at_plan
    slack = max(planned * RATE_MOVED, 0.01 * book.record.targets.hot_ready, 1e-9)
    return f"load moved from {planned:.4g} to {level:.4g}/s" if abs(level - planned) > slack else ""
