"""Converts the times in an engine's batch to the controller's clock, because the engine's clock may be wrong."""

from stoker_wire.messages import MetricsBatch, WorkerMetrics

AHEAD_SECONDS_MAX = 5.0
"""A clock that is further ahead is corrected. Synchronized clocks differ by much less."""
OLD_SECONDS_MAX = 7 * 86_400.0
"""The oldest accepted send time, as an age. The load history does not reach further back."""


def on_controller_clock(batch: MetricsBatch, now: float) -> MetricsBatch:
    """The batch with its times on the controller's clock.

    A send time in the future shows that the engine's clock is ahead, and by how much. All times of the batch are
    moved back by that. Otherwise a dead worker would count as responsive until that time, and correct engines would
    seem to report an old load. A send time before the load history is moved to its beginning. An engine's clock that
    is behind looks the same as a delayed batch, so it is not corrected.
    """
    ahead = batch.sent_at - now
    latest = now + AHEAD_SECONDS_MAX
    oldest = now - OLD_SECONDS_MAX
    if oldest <= batch.sent_at <= latest and all(time <= latest for time in _times(batch)):
        return batch
    back = ahead if ahead > AHEAD_SECONDS_MAX else 0.0
    return batch.model_copy(
        update={
            "sent_at": now if back else max(batch.sent_at, oldest),
            "last_request_at": _earlier(batch.last_request_at, back, now),
            "listening_since": max(0.0, min(batch.listening_since - back, now)),
            "workers": tuple(_worker(worker, back, now) for worker in batch.workers),
        }
    )


def _times(batch: MetricsBatch) -> list[float]:
    suspected = [worker.suspect_since for worker in batch.workers if worker.suspect_since is not None]
    suspected += [worker.started_at for worker in batch.workers]
    return [
        batch.last_request_at or 0.0,
        batch.listening_since,
        *suspected,
        *(worker.reported_at for worker in batch.workers),
    ]


def _worker(worker: WorkerMetrics, back: float, now: float) -> WorkerMetrics:
    return worker.model_copy(
        update={
            # 0 means "never", and stays 0.
            "reported_at": max(0.0, min(worker.reported_at - back, now)),
            "suspect_since": _earlier(worker.suspect_since, back, now),
            "started_at": max(0.0, min(worker.started_at - back, now)),
        }
    )


def _earlier(time: float | None, back: float, now: float) -> float | None:
    return None if time is None else min(time - back, now)
