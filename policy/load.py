"""Load windows: how much work arrived, at several resolutions, bounded in size."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadHistory:
    """Arrivals and backlog of one endpoint, as told by the engines.

    Each series is a tuple of (bucket start in Unix seconds, load that arrived in the bucket), oldest first. "No data"
    is not "no load": `known_until` says up to when the engines have spoken.
    """

    seconds: tuple[tuple[float, float], ...] = ()
    """5 s buckets of the last 5 minutes."""
    minutes: tuple[tuple[float, float], ...] = ()
    """1 min buckets of the last 2 hours."""
    quarters: tuple[tuple[float, float], ...] = ()
    """15 min buckets of the last 7 days."""
    known_since: float | None = None
    known_until: float | None = None
    backlog_load: float = 0.0
    """Load waiting in the engines' global queues now (not yet given to a worker)."""
    backlog_requests: int = 0
    oldest_wait_s: float = 0.0
    """How long the first in the queue has waited."""
    backlog_at: float = 0.0
    """When the backlog was told."""
    last_request_at: float | None = None
