"""Times that engines tell are read on one clock, the workflow's: engines run on other machines, whose clocks may be wrong."""

from stoker_wire.messages import MetricsBatch, WorkerMetrics

AHEAD_SECONDS_MAX = 5.0
"""So far may an engine's clock be ahead before its times are moved: clocks that are kept in step differ by much less."""
OLD_SECONDS_MAX = 7 * 86_400.0
"""What was told longer ago says nothing of any load that is still remembered."""


def told_in_time(batch: MetricsBatch, now: float) -> MetricsBatch:
    """The batch as the workflow can believe it.

    A batch that was sent later than now comes from a clock that is ahead: all its times are moved back by that. Without this a
    worker that it praised from the future would not be missed when it died, and right engines would tell of a load long past.
    One that comes from before all memory is of the oldest time that is remembered. A clock that is behind cannot be told
    from a batch that was late: what it says is old, from which nothing is concluded.
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
    reported = worker.reported_at
    return worker.model_copy(
        update={
            # 0 is "never", and stays that
            "reported_at": reported if reported <= 0 else max(0.0, min(reported - back, now)),
            "suspect_since": _earlier(worker.suspect_since, back, now),
            "started_at": worker.started_at
            if worker.started_at <= 0
            else max(0.0, min(worker.started_at - back, now)),
        }
    )


def _earlier(time: float | None, back: float, now: float) -> float | None:
    return None if time is None else min(time - back, now)
