"""Updates the record with batches of metrics. Each function returns why a new plan is due; empty: no plan is due."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from controller import plan_due
from controller.drain_handshake import TICKETS_SECONDS, note_drains_seen, open_tickets
from controller.engine_clocks import on_controller_clock
from controller.key_events import count_use
from controller.operation_results import keep
from controller.state import ENGINE_ENTRIES_KEPT, ENGINES_KEPT, EndpointStateBook, EngineRecord, Record
from policy.capacity.supply import holds_requests
from policy.load import history as load_windows
from policy.state.lifecycle import InvalidTransition
from policy.state.worker import Worker
from policy.state.worker_events import fold_metrics
from stoker_wire.messages import REQUEST_BREAKS_MAX, MetricsBatch, RequestBreak, WorkerMetrics


def receive(book: EndpointStateBook, batches: Sequence[MetricsBatch], now: float) -> str:
    """Folds the batches of one engine, and notes the drains that every engine has seen with them."""
    due = fold(book, batches, now)
    seen = note_drains_seen(book, now)
    return due or ("every engine has seen the drain" if seen else "")


def fold(book: EndpointStateBook, batches: Sequence[MetricsBatch], now: float) -> str:
    """Folds the batches of one engine, oldest first. Outdated and repeated batches are dropped."""
    record = book.record
    queued_before = record.load.backlog_load
    folded = [_fold(book, batch, now) for batch in batches]
    if all(each is None for each in folded):
        return ""
    reasons = [
        *folded,
        plan_due.queue_reason(record.load.backlog_load, queued_before),
        plan_due.level_reason(record.load, record.load_at_plan, record.targets.hot_ready),
    ]
    return next(filter(None, reasons), "")


def _fold(book: EndpointStateBook, batch: MetricsBatch, now: float) -> str | None:
    record = book.record
    before = record.engines.get(batch.engine_id)
    if before is not None and batch.sequence <= before.sequence:
        return None
    batch = on_controller_clock(batch, now)
    record.engines.pop(batch.engine_id, None)
    record.engines[batch.engine_id] = _engine(batch, record.workers.keys(), now)
    _forget_engines(record, now)
    record.listening_since = max(record.listening_since, batch.listening_since)
    record.request_breaks = _request_breaks(book, batch, now)
    count_use(record, batch.keys, now)
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
        last_request_at=batch.last_request_at,
    )
    reasons = [batch.urgent, *(_worker(book, report, now) for report in batch.workers)]
    return next(filter(None, reasons), "")


def _request_breaks(book: EndpointStateBook, batch: MetricsBatch, now: float) -> tuple[RequestBreak, ...]:
    """The newest breaks with those of the batch; each once, without those that no longer count."""
    known = book.record.request_breaks
    if not known and not batch.breaks:
        return known
    oldest = now - book.tuning.request_refused_seconds
    breaks = {(each.f, each.l, each.t): each for each in (*known, *batch.breaks) if each.t > oldest}
    return tuple(breaks.values())[-REQUEST_BREAKS_MAX:]


def _forget_engines(record: Record, now: float) -> None:
    """Removes the oldest engine records over the limit, and expired tickets."""
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
    """The engine's record after the batch: open tickets and confirmed drains of workers on record.

    Each batch lists all such workers, so it replaces the previous one. Otherwise an old confirmation would count for
    a worker's second drain.
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


def _worker(book: EndpointStateBook, report: WorkerMetrics, now: float) -> str:
    record = book.record
    worker = record.workers.get(report.launch_id)
    if worker is None or worker.instance_id not in {None, report.instance_id}:
        return ""
    tickets = open_tickets(book, report.launch_id, now)
    try:
        folded = fold_metrics(
            worker,
            report,
            now=now,
            learned=record.learned,
            tickets_open=tickets,
            fleet=record.workers.values(),
        )
    except InvalidTransition as fault:
        book.log.note(now, "worker", str(fault), subject=report.launch_id, level=2)
        return ""
    keep(book, worker, folded, now)
    if folded.lines:
        return folded.lines[0]
    after = folded.worker
    if after is None:
        return ""
    if after.drain is not None and _holdings_changed(worker, after):
        return f"draining worker {report.launch_id} holds other requests or tickets"
    if worker.load > 0 and after.load <= 0 and _is_idle(book):
        return f"worker {report.launch_id} finished the last request: the inactivity timeout begins"
    if (after.suspect_since is None) != (worker.suspect_since is None):
        answers = after.suspect_since is None
        return f"worker {report.launch_id} " + ("answers again" if answers else "does not answer clients")
    return ""


def _is_idle(book: EndpointStateBook) -> bool:
    """Whether no worker holds requests and an inactivity timeout is set. Its end needs a timer, which a plan sets."""
    timeout = book.record.config.inactivity_timeout
    if timeout is None or timeout <= 0:
        return False
    return not any(holds_requests(worker) for worker in book.record.workers.values())


def _holdings_changed(before: Worker, after: Worker) -> bool:
    held = (before.in_flight, before.tickets_open > 0, before.load > 0)
    return held != (after.in_flight, after.tickets_open > 0, after.load > 0)
