"""The draining handshake: when has every engine stopped giving a worker out?"""

from controller.state import ENGINE_LIVE_SECONDS, EndpointStateBook
from policy.state.worker import Worker
from policy.state.worker_events import fold_drain_seen
from stoker_wire.security.ticket import TICKET_SECONDS

SLOW_ENGINE_SECONDS = 180.0
"""An engine with nothing to tell speaks about once a minute; three missed words, and it is gone."""

NOTICE_SECONDS = 10.0
"""Engines look at the memo every second, so by now even a calm one has seen the drain and said so."""


TICKETS_SECONDS = TICKET_SECONDS + 5.0
"""An engine that died left tickets behind; this long after its last word the last of them has run out."""


def open_tickets(book: EndpointStateBook, launch_id: str, now: float) -> int:
    """Route answers that name the worker and may still be used, over all engines."""
    return sum(
        engine.tickets.get(launch_id, 0)
        for engine in book.record.engines.values()
        if now - engine.heard_at <= TICKETS_SECONDS
    )


def recheck_at(book: EndpointStateBook, now: float) -> float | None:
    """When the silence of an engine will have freed a draining worker, if nobody speaks before."""
    engines = book.record.engines.values()
    moments = []
    for worker in book.record.workers.values():
        if worker.drain is None:
            continue
        moments += [
            engine.heard_at + TICKETS_SECONDS for engine in engines if engine.tickets.get(worker.launch_id)
        ]
        if worker.drain.seen_at is None:
            notice = worker.drain.since + NOTICE_SECONDS
            moments += [
                max(notice, engine.heard_at + ENGINE_LIVE_SECONDS) for engine in engines if not engine.left
            ]
    return min((moment for moment in moments if moment > now), default=None)


def note_drains_seen(book: EndpointStateBook, now: float) -> bool:
    """Writes `seen_at` on each drain that all engines know of; whether any was new.

    Tickets of draining workers are counted anew: those of a dead engine run out without anybody saying so.
    """
    news = False
    for worker in list(book.record.workers.values()):
        if worker.drain is not None and worker.tickets_open:
            worker = worker.replace(tickets_open=open_tickets(book, worker.launch_id, now))  # noqa: PLW2901 - the same worker
            book.record.workers[worker.launch_id] = worker
        if worker.drain is not None and worker.drain.seen_at is None and _all_have_seen(book, worker, now):
            book.record.workers[worker.launch_id] = fold_drain_seen(worker, at=now)
            news = True
    return news


def _all_have_seen(book: EndpointStateBook, worker: Worker, now: float) -> bool:
    """Whether each engine that may still give the worker out has said that it does not.

    A calm engine speaks seldom: for the first seconds of a drain it is waited for, after that only engines that spoke
    lately count. With no engine heard of, nothing is known, and the drain's deadline decides.
    """
    drain = worker.drain
    if drain is None:
        return False
    silence = SLOW_ENGINE_SECONDS if now - drain.since < NOTICE_SECONDS else ENGINE_LIVE_SECONDS
    present = [engine for engine in book.record.engines.values() if not engine.left]
    live = [engine for engine in present if now - engine.heard_at <= silence]
    return bool(live) and all(worker.launch_id in engine.drains_seen for engine in live)
