"""What the last hours teach: how long hot capacity is worth keeping, and whether what came every hour comes again.

For how long a lull has to be sat out is a question about the traffic, not about the machine: a stream that pauses for a
minute between bursts wants its workers kept for a minute and a half, a steady one for half a minute, one that wakes on
the hour wants them woken before it. So every way of holding is tried in the books, beside the real fleet: each trial
lives through the arrivals as they come, with the start delay that was learned, and books what it would have cost and how
much work would have waited too long. The cheapest that makes little enough late is the one that is used (`policy.keepalive.candidates`).

Everything is bounded: a trial is five numbers, the peaks are two falling lists, the habit is a ring of minutes.
"""

import math
from dataclasses import dataclass

from policy.keepalive.candidates import (
    FRESH,
    HOLDS,
    LAST_SECONDS,
    WAYS,
    Trial,
    cheapest,
)
from policy.load.history import BUCKET_SECONDS, LoadHistory
from policy.load.peaks import Peaks, bounded, held
from policy.load.seasonality import HABIT_MINUTES, MINUTE_SECONDS, seasonal_level
from policy.tuning import Tuning

_HOUR_SECONDS = 3600.0
_STEPS_MAX = 720
"""An hour of buckets is lived through one by one; of a longer silence only the forgetting is booked."""
_UNIT_MIN = 1e-9
"""A worker that does less, load/s, does nothing: what it would take of such is beyond all numbers."""
_SPARE_AT = tuple((HOLDS.index(way.seconds), 1.0 + way.spare) for way in WAYS if way.spare)
_LAST_AT = tuple(HOLDS.index(way.seconds) for way in WAYS if way.last)
_PARTS_AT = tuple(
    (HOLDS.index(way.seconds), HOLDS.index(way.part_seconds), way.part) for way in WAYS if way.part
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepaliveMemory:
    """The trials' books, carried from plan to plan. Times are Unix seconds, levels load/s."""

    at: float = 0.0
    """Up to when it has lived; 0: not at all."""
    since: float = 0.0
    """When it began."""
    needs: tuple[float, ...] = ()
    """The need of the last buckets, oldest first, as far back as a start takes."""
    peaks: Peaks = ()
    """What was needed up to a start's time ago: the levels that a trial can have hot by now."""
    minutes: tuple[float, ...] = ()
    """The highest need of each minute, by the minute's number modulo `HABIT_MINUTES`."""
    work: float = 0.0
    """Seconds of one worker that arrived, discounted."""
    trials: tuple[Trial, ...] = ()
    chosen: int = -1
    """Index into `trials`; below 0: too little was seen to choose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How hot capacity is kept."""

    seconds: float
    habit: bool
    """Whether what came at this minute of each of the last hours is met in advance."""
    spare: float
    """What is kept beyond what is needed, as a share of it."""
    last: bool = False
    """Whether the last worker is kept for `policy.keepalive.candidates.LAST_SECONDS`."""
    part: float = 0.0
    """The share of what was needed that is kept for `part_seconds`."""
    part_seconds: float = 0.0
    late_share: float | None
    """Work that would have waited too long by its trial's books; None: too little was seen."""

    @property
    def words(self) -> str:
        """The spare in a reason; nothing where there is none."""
        return f"{self.spare:.0%} more by experience" if self.spare else ""

    @property
    def longest_seconds(self) -> float:
        """For how long anything is kept."""
        return max(self.seconds, self.part_seconds)

    def level(self, peaks: Peaks, now: float) -> float:
        """What is kept of these peaks, load/s."""
        all_of_it = held(peaks, now, self.seconds) * (1.0 + self.spare)
        return max(all_of_it, self.part * held(peaks, now, self.part_seconds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What the trials live under."""

    unit: float
    """What one worker does, load/s."""
    service_seconds: float
    """What a request keeps one worker busy for."""
    start_seconds: float
    """From the decision to a worker that serves."""
    lead_seconds: float
    """How long before it is expected a habit is met."""
    billed_seconds: float
    """What a start costs, in seconds of a running worker."""
    queue_seconds: float
    """How long a request may wait: target_queue_time."""


def need_window(queue_seconds: float, service_seconds: float, tuning: Tuning) -> float:
    """Over how many seconds arrivals are averaged to the capacity that they need.

    Work that may wait for T and then runs for s can be spread over T + s: ten requests of 5 s at one moment need not ten
    workers but four, if each may wait for 10 s.
    """
    return min(max(queue_seconds + service_seconds, tuning.need_seconds_min), tuning.need_seconds_max)


def lived(
    experience: KeepaliveMemory, history: LoadHistory, on: Conditions, tuning: Tuning
) -> KeepaliveMemory:
    """The books after everything that the history tells and that they do not have yet."""
    if history.known_until is None or history.known_since is None or on.unit < _UNIT_MIN:
        return experience
    # an engine's word of a bucket may come after another's: lived through is what all of them have told
    told = min((word.at for word in history.engines), default=history.known_until)
    end = told // BUCKET_SECONDS * BUCKET_SECONDS
    begin = experience.at or max(history.known_since, end - 300.0) // BUCKET_SECONDS * BUCKET_SECONDS
    steps = int((end - begin) / BUCKET_SECONDS)
    if steps <= 0:
        return experience
    since = experience.since or begin
    life = _Life(experience, history, on, tuning, since)
    if steps > _STEPS_MAX:
        life.forget((steps - _STEPS_MAX) * BUCKET_SECONDS)
        begin, steps = end - _STEPS_MAX * BUCKET_SECONDS, _STEPS_MAX
    life.live(begin, steps)
    return life.books(end)


class _Life:
    """The books while they are written."""

    def __init__(
        self, experience: KeepaliveMemory, history: LoadHistory, on: Conditions, tuning: Tuning, since: float
    ) -> None:
        self._on = on
        self._tuning = tuning
        self._loads = dict(history.seconds)
        self._delay = max(1, round(on.start_seconds / BUCKET_SECONDS))
        self._needs = list(experience.needs[-self._delay :])
        self._peaks = list(experience.peaks)
        self._minutes = list(experience.minutes) or [0.0] * HABIT_MINUTES
        self._minute = int(experience.at // MINUTE_SECONDS) if experience.at else None
        self._work = experience.work
        # books of another version, which tried other holds, say nothing of these
        known = len(experience.trials) == len(WAYS)
        self._trials = list(experience.trials) if known else [FRESH] * len(WAYS)
        self._chosen = experience.chosen if known else -1
        self._since = since
        self._start_price = on.billed_seconds * tuning.start_weight

    def forget(self, seconds: float) -> None:
        """Time passes in which nothing came, nothing was hot and nothing was expected."""
        share = math.exp(-seconds / self._tuning.experience_seconds)
        self._work *= share
        self._trials = [(0.0, 0.0, late * share, paid * share, 0) for _, _, late, paid, _ in self._trials]
        self._needs, self._peaks = [], []

    def live(self, begin: float, steps: int) -> None:
        width = BUCKET_SECONDS
        window = need_window(self._on.queue_seconds, self._on.service_seconds, self._tuning)
        buckets = max(1, math.ceil(window / width))
        loads = self._loads
        inside = sum(loads.get(begin - number * width, 0.0) for number in range(1, buckets + 1))
        for step in range(steps):
            at = begin + step * width
            arrived = loads.get(at, 0.0)
            inside += arrived - loads.get(at - buckets * width, 0.0)
            need = max(inside, 0.0) / (buckets * width)
            self._mark_minute(at, need)
            if self._is_quiet(arrived, need):
                self.forget(width)
            else:
                self._step(at, arrived, need)

    def _is_quiet(self, arrived: float, need: float) -> bool:
        """Nothing comes, nothing is hot and nothing is expected: only time passes."""
        return (
            arrived <= 0
            and need <= 0
            and not self._peaks
            and not any(self._needs)
            and not any(self._minutes)
            and all(trial[0] <= 0 and trial[4] == 0 for trial in self._trials)
        )

    def _mark_minute(self, at: float, need: float) -> None:
        minute = int(at // MINUTE_SECONDS)
        before = minute if self._minute is None else self._minute
        for number in range(max(before + 1, minute - HABIT_MINUTES + 1), minute + 1):
            self._minutes[number % HABIT_MINUTES] = 0.0
        self._minute = minute
        self._minutes[minute % HABIT_MINUTES] = max(self._minutes[minute % HABIT_MINUTES], round(need, 2))

    def _step(self, at: float, arrived: float, need: float) -> None:
        on, width = self._on, BUCKET_SECONDS
        self._needs.append(need)
        if len(self._needs) > self._delay:
            seen = self._needs.pop(0)
            while self._peaks and self._peaks[-1][1] <= seen:
                self._peaks.pop()
            self._peaks.append((at, seen))
        while self._peaks and self._peaks[0][0] <= at - HOLDS[-1]:
            self._peaks.pop(0)
        share = math.exp(-width / self._tuning.experience_seconds)
        work = arrived / on.unit
        self._work = self._work * share + work
        workers = self._workers(at)
        begun = at - self._since >= on.start_seconds
        self._trials = self._after(workers, work, share, need / on.unit, begun=begun)

    def _workers(self, at: float) -> list[int]:
        """How many workers each trial has hot now."""
        unit, expected = self._on.unit, seasonal_level(self._minutes, at, self._on.lead_seconds, self._tuning)
        levels, plain, habitual = [], [], []
        last, count, met = -1.0, 0, 0
        peaks, first = self._peaks, len(self._peaks)
        for hold in HOLDS:
            # peaks fall and holds grow: the highest that is still held stands further and further to the left
            while first and peaks[first - 1][0] > at - hold:
                first -= 1
            level = peaks[first][1] if first < len(peaks) else 0.0
            if level != last:
                last, count = level, math.ceil(level / unit - 0.02)
                met = count if level >= expected else math.ceil(expected / unit - 0.02)
            levels.append(level / unit)
            plain.append(count)
            habitual.append(met)
        spared = [math.ceil(levels[hold] * grown - 0.02) for hold, grown in _SPARE_AT]
        least = 1 if levels[-1] > 0 else 0
        lasting = [max(plain[hold], least) for hold in _LAST_AT]
        partly = [
            max(plain[hold], math.ceil(levels[longer] * part - 0.02)) for hold, longer, part in _PARTS_AT
        ]
        return plain + habitual + spared + lasting + partly

    def _after(
        self, workers: list[int], work: float, share: float, need: float, *, begun: bool
    ) -> list[Trial]:
        """The trials a bucket later, in which so much work came; each of them with so many workers hot, `need` of them needed.

        A request has one worker, and is done after so many seconds whenever it began: what is inside is so many requests as it is
        service times of work.
        """
        on, width, price = self._on, BUCKET_SECONDS, self._start_price
        served = min(on.service_seconds, _HOUR_SECONDS)
        patience = on.queue_seconds + served
        coming = work / max(served, width)
        # requests that run for much longer than they may wait do not flow into what is left of the workers: whoever finds all
        # of them busy is late, however little is left to do
        stuck = work * max(0.0, (served - on.queue_seconds) / patience) * begun
        trials: list[Trial] = []
        for (before, was_over, was_late, was_paid, hot), now in zip(self._trials, workers, strict=True):
            # spelt out, here and in what follows: each call of a function is made forty times a bucket
            busy = before / served + coming
            done = (now if now <= busy else busy) * width  # noqa: FURB136 - the call is what is saved
            inside = before + work - done
            if inside < 0.0:
                inside = 0.0
            paid = was_paid * share + now * width
            if now > hot:
                paid += (now - hot) * price
            alone = stuck * (1.0 - now / need) if need > now else 0.0
            if inside <= now * patience:
                trials.append((inside, 0.0, was_late * share + alone, paid, now))
                continue
            # who is late lets those pass who can still be served in time: late is what comes beyond the capacity
            beyond = min(inside - now * patience, work - done)
            late = was_late * share + max(alone, beyond * begun)
            over = was_over + width
            # capacity that is missing now is there a start later, and enough of it to clear what waited
            cleared = over >= on.start_seconds
            trials.append((0.0, 0.0, late, paid, now) if cleared else (inside, over, late, paid, now))
        return trials

    def books(self, end: float) -> KeepaliveMemory:
        trials = tuple(
            (inside and round(inside, 2), over, late and round(late, 2), round(paid, 1), hot)
            for inside, over, late, paid, hot in self._trials
        )
        chosen = self._chosen
        if end - self._since >= self._tuning.experience_seconds_min and self._work > 0:
            young = end - self._since < self._tuning.experience_seconds_young
            chosen = cheapest(trials, self._work, chosen, self._tuning, young=young)
        return KeepaliveMemory(
            at=end,
            since=self._since,
            needs=tuple(round(need, 3) for need in self._needs),
            peaks=bounded([(at, round(level, 3)) for at, level in self._peaks]),
            minutes=tuple(self._minutes) if any(self._minutes) else (),
            work=round(self._work, 3),
            trials=trials,
            chosen=chosen,
        )


def keep(experience: KeepaliveMemory, tuning: Tuning) -> Keep:
    """How to hold, by the books so far."""
    number = experience.chosen
    # of books of another version nothing was lived through yet
    if number < 0 or len(experience.trials) != len(WAYS):
        return Keep(seconds=tuning.hot_hold_seconds_unknown, habit=False, spare=0.0, late_share=None)
    late, way = experience.trials[number][2], WAYS[number]
    return Keep(
        seconds=way.seconds,
        habit=way.habit,
        spare=way.spare,
        last=way.last,
        part=way.part,
        part_seconds=way.part_seconds,
        late_share=late / experience.work if experience.work > 0 else None,
    )


def last_until(experience: KeepaliveMemory) -> float:
    """Until when the last worker is kept, if it is kept for longer than the others; 0: nothing was needed lately."""
    count = len(experience.needs)
    moments = [at for at, level in experience.peaks if level > 0]
    moments += [
        experience.at - (count - number) * BUCKET_SECONDS
        for number, need in enumerate(experience.needs)
        if need > 0
    ]
    return max(moments) + LAST_SECONDS if moments else 0.0


def needed_since(experience: KeepaliveMemory, moment: float) -> float:
    """The highest need of the buckets that ended after it, load/s; 0: none was lived through."""
    count = math.ceil((experience.at - moment) / BUCKET_SECONDS)
    return max(experience.needs[-count:], default=0.0) if count > 0 else 0.0
