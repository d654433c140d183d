"""Times that engines tell are read on one clock, the workflow's: engines run on other machines, whose clocks may be wrong."""

from dataclasses import replace

from temporalio import workflow

from policy.experience import Experience
from policy.load import LoadHistory
from policy.observation import Memory
from workflows.messages import MetricsBatch, WorkerMetrics
from workflows.state import EngineRecord, Record

ONE_CLOCK = "one-clock"
CLOCK_BEHIND = "clock-behind"
NO_FUTURE = "no-future"

IN_STEP_SECONDS = 5.0
"""So far may an engine's clock be from the workflow's before its times are moved: clocks that are kept in step differ by much
less."""
OLD_SECONDS_MAX = 7 * 86_400.0
"""What was told longer ago says nothing of any load that is still remembered."""
DRIFT_PER_SECOND = 0.01
"""So much further behind may a clock be for each second since its last word: far more than a clock drifts, and far less than
a delay adds to."""


def behind(batch: MetricsBatch, before: EngineRecord | None, now: float) -> float | None:
    """How far the clock of the batch's engine is behind the workflow's, in seconds, below zero: ahead. None: not known yet.

    A batch is heard when it was sent, or later. So of all that the engine has told, the one that seems the least old says
    how far its clock is behind; of the others, what is beyond that is the time that they took. The first word of an
    engine is taken to have come at once: nothing says otherwise.
    """
    age = now - batch.sent_at
    if before is None or before.behind is None or before.sent_at is None:
        return age
    if batch.sent_at < before.sent_at:
        return age  # its clock was put back: what was known of it holds no more
    if now <= before.heard_at and age < before.behind - IN_STEP_SECONDS:
        return None  # sent one after the other and heard at one moment: they all have waited, who knows for how long
    return min(age, before.behind + DRIFT_PER_SECOND * (now - before.heard_at))


def told_in_time(batch: MetricsBatch, behind: float | None, now: float) -> MetricsBatch:
    """The batch as the workflow can believe it, of an engine whose clock is so far `behind`.

    All times of a clock that is behind are moved forward by that: what it told would be old for ever, its queue that of an
    engine long gone, and of its load nothing would follow. What took its time on the way stays as old as that.

    A batch that was sent later than now comes from a clock that is ahead: all its times are moved back by that. Without this a
    worker that it praised from the future would not be missed when it died, and right engines would tell of a load long past.
    One that comes from before all memory is of the oldest time that is remembered.
    """
    age = now - batch.sent_at
    oldest = now - OLD_SECONDS_MAX
    # Asked only where it matters, here and below: a history of before the change has no mark, and goes on as it went.
    if behind is not None and min(behind, age) > IN_STEP_SECONDS and workflow.patched(CLOCK_BEHIND):
        return _moved(batch, behind, sent_at=max(min(now - (age - behind), now), oldest), now=now)
    latest = now + IN_STEP_SECONDS
    if oldest <= batch.sent_at <= latest and all(time <= latest for time in _times(batch)):
        return batch
    if not workflow.patched(ONE_CLOCK):
        return batch
    if batch.sent_at > latest:
        return _moved(batch, age, sent_at=now, now=now)
    return _moved(batch, 0.0, sent_at=max(batch.sent_at, oldest), now=now)


def _moved(batch: MetricsBatch, seconds: float, *, sent_at: float, now: float) -> MetricsBatch:
    """The batch with all its times so many seconds later, none of them in the future."""
    return batch.model_copy(
        update={
            "sent_at": sent_at,
            "last_request_at": _later(batch.last_request_at, seconds, now),
            "workers": tuple(_worker(worker, seconds, now) for worker in batch.workers),
        }
    )


def _times(batch: MetricsBatch) -> list[float]:
    suspected = [worker.suspect_since for worker in batch.workers if worker.suspect_since is not None]
    return [batch.last_request_at or 0.0, *suspected, *(worker.reported_at for worker in batch.workers)]


def _worker(worker: WorkerMetrics, seconds: float, now: float) -> WorkerMetrics:
    reported = worker.reported_at
    return worker.model_copy(
        update={
            # 0 is "never", and stays that
            "reported_at": reported if reported <= 0 else max(0.0, min(reported + seconds, now)),
            "suspect_since": _later(worker.suspect_since, seconds, now),
        }
    )


def _later(time: float | None, seconds: float, now: float) -> float | None:
    return None if time is None else min(time + seconds, now)


def forget_the_future(record: Record, now: float) -> tuple[str, ...]:
    """Takes out of a state that was handed on what an older build believed of an engine whose clock was ahead. The names of
    what begins anew; none: it was all of the past.

    Until that future has come, right engines would tell of a load long past, and workers of what is known already.
    """
    latest = now + IN_STEP_SECONDS
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
            reported_at=_later(worker.reported_at, 0.0, now),
            suspect_since=_later(worker.suspect_since, 0.0, now),
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
