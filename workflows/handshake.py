"""The draining handshake: when has every engine stopped giving a worker out?"""

from policy.fleet import Worker
from policy.observe import fold_drain_seen
from workflows.state import ENGINE_LIVE_SECONDS, EndpointStateBook

SLOW_ENGINE_SECONDS = 180.0
"""An engine with nothing to tell speaks about once a minute; three missed words, and it is gone."""

NOTICE_SECONDS = 10.0
"""Engines look at the memo every second, so by now even a calm one has seen the drain and said so."""


def note_drains_seen(book: EndpointStateBook, now: float) -> bool:
    """Writes `seen_at` on each drain that all engines know of; whether any was new."""
    news = False
    for worker in list(book.record.workers.values()):
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
    live = [engine for engine in book.record.engines.values() if now - engine.heard_at <= silence]
    return bool(live) and all(worker.launch_id in engine.drains_seen for engine in live)
