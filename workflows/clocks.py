"""Times that engines tell are read on one clock, the workflow's: engines run on other machines, whose clocks may be wrong."""

from dataclasses import replace

from temporalio import workflow

from policy.experience import Experience
from policy.load import LoadHistory
from policy.observation import Memory
from workflows.messages import MetricsBatch, WorkerMetrics
from workflows.state import Record

ONE_CLOCK = "one-clock"
NO_FUTURE = "no-future"

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
    # Asked only where it matters: a history of before the change has no mark, and goes on as it went.
    if not workflow.patched(ONE_CLOCK):
        return batch
    back = ahead if ahead > AHEAD_SECONDS_MAX else 0.0
    return batch.model_copy(
        update={
            "sent_at": now if back else max(batch.sent_at, oldest),
            "last_request_at": _earlier(batch.last_request_at, back, now),
            "workers": tuple(_worker(worker, back, now) for worker in batch.workers),
        }
    )


def _times(batch: MetricsBatch) -> list[float]:
    suspected = [worker.suspect_since for worker in batch.workers if worker.suspect_since is not None]
    return [batch.last_request_at or 0.0, *suspected, *(worker.reported_at for worker in batch.workers)]


def _worker(worker: WorkerMetrics, back: float, now: float) -> WorkerMetrics:
    reported = worker.reported_at
    return worker.model_copy(
        update={
            # 0 is "never", and stays that
            "reported_at": reported if reported <= 0 else max(0.0, min(reported - back, now)),
            "suspect_since": _earlier(worker.suspect_since, back, now),
        }
    )


def _earlier(time: float | None, back: float, now: float) -> float | None:
    return None if time is None else min(time - back, now)


def forget_the_future(record: Record, now: float) -> tuple[str, ...]:
    """Takes out of a state that was handed on what an older build believed of an engine whose clock was ahead. The names of
    what begins anew; none: it was all of the past.

    Until that future has come, right engines would tell of a load long past, and workers of what is known already.
    """
    latest = now + AHEAD_SECONDS_MAX
    load, memory, advice = record.load, record.memory, record.advice
    told = [load.known_until or 0.0, load.last_request_at or 0.0, *(word.at for word in load.engines)]
    memories = (
        [memory] if advice is None else [memory, advice.memory, advice.live.memory, advice.advised.memory]
    )
    reported = [worker.reported_at or 0.0 for worker in record.workers.values()]
    suspected = [worker.suspect_since or 0.0 for worker in record.workers.values()]
    lived = [each.experience.at for each in memories]
    # asked only where it matters: a run that went on from there has no mark, and goes on as it went
    if max([*told, *reported, *suspected, *lived]) <= latest or not workflow.patched(NO_FUTURE):
        return ()
    for name, worker in record.workers.items():
        record.workers[name] = worker.but(
            reported_at=_earlier(worker.reported_at, 0.0, now),
            suspect_since=_earlier(worker.suspect_since, 0.0, now),
        )
    begun_anew = []
    if max(told) > latest:
        # the arrivals are booked in the future, too; these two are sums, of no time
        record.load = LoadHistory(mean_cost=load.mean_cost, late_load=load.late_load)
        begun_anew.append("load")
    if max(lived) > latest:
        record.memory = _inexperienced(memory)
        if advice is not None:
            record.advice = replace(
                advice,
                memory=_inexperienced(advice.memory),
                live=replace(advice.live, memory=_inexperienced(advice.live.memory)),
                advised=replace(advice.advised, memory=_inexperienced(advice.advised.memory)),
            )
        begun_anew.append("experience")
    return tuple(begun_anew) or ("workers' reports",)


def _inexperienced(memory: Memory) -> Memory:
    return replace(memory, experience=Experience())
