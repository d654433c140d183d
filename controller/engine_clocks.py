"""Converts the times in an engine's batch to the controller's clock, because the engine's clock may be wrong."""

from stoker_wire.messages import MetricsBatch, WorkerMetrics

AHEAD_SECONDS_MAX = 5.0
"""A clock that is further ahead is corrected. Synchronized clocks differ by much less."""
OLD_SECONDS_MAX = 7 * 86_400.0
"""The oldest accepted send time, as an age. The load history does not reach further back."""
_TIMES = ("last_request_at", "listening_since")
_WORKER_TIMES = ("reported_at", "suspect_since", "started_at")


def on_controller_clock(batch: MetricsBatch, now: float) -> MetricsBatch:
    """The batch with its times on the controller's clock.

    A send time in the future shows that the engine's clock is ahead, and by how much. All times of the batch are
    moved back by that. Otherwise a dead worker would count as responsive until that time, and correct engines would
    seem to report an old load. A send time before the load history is moved to its beginning. An engine's clock that
    is behind looks the same as a delayed batch, so it is not corrected.
    """
    latest, oldest = now + AHEAD_SECONDS_MAX, now - OLD_SECONDS_MAX
    times = [batch.sent_at, *(getattr(batch, name) or 0.0 for name in _TIMES)]
    times += [getattr(worker, name) or 0.0 for worker in batch.workers for name in _WORKER_TIMES]
    if oldest <= batch.sent_at and max(times) <= latest:
        return batch
    back = batch.sent_at - now if batch.sent_at > latest else 0.0

    def moved(record: MetricsBatch | WorkerMetrics, names: tuple[str, ...]) -> dict[str, object]:
        """None and 0 mean never, and stay."""
        values = {name: getattr(record, name) for name in names}
        return {name: at and max(0.0, min(at - back, now)) for name, at in values.items()}

    workers = tuple(worker.model_copy(update=moved(worker, _WORKER_TIMES)) for worker in batch.workers)
    sent_at = now if back else max(batch.sent_at, oldest)
    return batch.model_copy(update={**moved(batch, _TIMES), "sent_at": sent_at, "workers": workers})
