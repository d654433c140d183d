"""The drain handshake: every engine confirms that it assigns no more requests to a draining worker."""

from controller.state import ENGINE_LIVE_SECONDS, EndpointStateBook
from policy.state.worker import Worker
from policy.state.worker_events import fold_drain_seen
from stoker_wire.security.ticket import TICKET_SECONDS

SLOW_ENGINE_SECONDS = 180.0
"""An engine without changes reports once a minute; after three missed reports it counts as dead."""

NOTICE_SECONDS = 10.0
"""Engines read the memo every second, so after this time every live engine has confirmed the drain."""


TICKETS_SECONDS = TICKET_SECONDS + 5.0
"""This long after the last report of a dead engine, all its tickets have expired."""


def open_tickets(book: EndpointStateBook, launch_id: str, now: float) -> int:
    """Unexpired tickets for the worker, summed over all engines."""
    return sum(
        engine.tickets.get(launch_id, 0)
        for engine in book.record.engines.values()
        if now - engine.heard_at <= TICKETS_SECONDS
    )


def recheck_at(book: EndpointStateBook, now: float) -> float | None:
    """When the timeout of a silent engine next changes a drain or open tickets; None: no timeout is pending."""
    engines = book.record.engines.values()
    moments = []
    for worker in book.record.workers.values():
        if worker.drain is not None or worker.tickets_open:
            moments += [
                engine.heard_at + TICKETS_SECONDS
                for engine in engines
                if engine.tickets.get(worker.launch_id)
            ]
        if worker.drain is not None and worker.drain.seen_at is None:
            notice = worker.drain.since + NOTICE_SECONDS
            moments += [
                max(notice, engine.heard_at + ENGINE_LIVE_SECONDS) for engine in engines if not engine.left
            ]
    return min((moment for moment in moments if moment > now), default=None)


def expire_tickets(book: EndpointStateBook, now: float) -> None:
    """Sum the open tickets of each worker again, because those of a dead engine expire without a report."""
    for worker in list(book.record.workers.values()):
        if worker.tickets_open:
            tickets = open_tickets(book, worker.launch_id, now)
            book.record.workers[worker.launch_id] = worker.replace(tickets_open=tickets)


def note_drains_seen(book: EndpointStateBook, now: float) -> bool:
    """Set `seen_at` on each drain that all engines have confirmed; True if any was new."""
    news = False
    for worker in list(book.record.workers.values()):
        if worker.drain is not None and worker.drain.seen_at is None and _all_have_seen(book, worker, now):
            book.record.workers[worker.launch_id] = fold_drain_seen(worker, at=now)
            news = True
    return news


def _all_have_seen(book: EndpointStateBook, worker: Worker, now: float) -> bool:
    """Whether each live engine has confirmed the drain.

    During the first seconds of a drain, engines that report once a minute count as live as well. After that, only
    engines with a recent report count. Without a live engine the drain's deadline decides.
    """
    drain = worker.drain
    if drain is None:
        return False
    limit = SLOW_ENGINE_SECONDS if now - drain.since < NOTICE_SECONDS else ENGINE_LIVE_SECONDS
    present = [engine for engine in book.record.engines.values() if not engine.left]
    live = [engine for engine in present if now - engine.heard_at <= limit]
    return bool(live) and all(worker.launch_id in engine.drains_seen for engine in live)
