"""Evaluation of the keep-alive candidates on the recorded load of the last hours.

The best hold time depends on the traffic: a stream that pauses for a minute between bursts needs workers that stay
hot for 90 s, a steady one for 30 s, an hourly one needs a start ahead of each hour. Each candidate is simulated on
the arrivals as they come, with the measured start time. Its totals record the cost and the work that waited too long.
The cheapest candidate is used (`policy.keepalive.candidates`).

The state is bounded: five numbers per candidate, a bounded list of peaks, and one number per minute of the season.
"""

import math
from dataclasses import dataclass, replace

from policy.keepalive.candidates import (
    CANDIDATES,
    HOLD_SECONDS,
    CandidateTotals,
    LatePrice,
    Retention,
    cheapest,
)
from policy.load.history import BUCKET_SECONDS, LoadHistory
from policy.load.peaks import Peaks, merge_closest_peaks
from policy.load.seasonality import MINUTE_SECONDS, SEASON_MINUTES, seasonal_level
from policy.tuning import Tuning

_SERVICE_SECONDS_MAX = 3600.0
_STEPS_MAX = 720
"""An hour of buckets is evaluated step by step. For a longer gap only the discounting is applied."""
_WORKER_LOAD_MIN = 1e-9
"""Workers below this perf, load/s, are not evaluated: the number of workers needed would overflow."""
_SPARES = tuple(
    (HOLD_SECONDS.index(each.seconds), 1.0 + each.spare_share) for each in CANDIDATES if each.spare_share
)
_TAIL_HOLDS = tuple(
    (HOLD_SECONDS.index(each.seconds), HOLD_SECONDS.index(each.tail_seconds), each.tail_share)
    for each in CANDIDATES
    if each.tail_share
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepaliveState:
    """The state of the evaluation, carried from plan to plan. Times are Unix seconds, levels load/s."""

    evaluated_until: float = 0.0
    """0: not evaluated yet."""
    began_at: float = 0.0
    recent_demand: tuple[float, ...] = ()
    """Demand of the last buckets, oldest first, as many as a start takes."""
    peaks: Peaks = ()
    """Peaks of the demand up to a start time ago: levels that a candidate can have hot by now."""
    minute_peaks: tuple[float, ...] = ()
    """Peak demand of each minute, indexed by the minute's number modulo `SEASON_MINUTES`."""
    work: float = 0.0
    """Work that arrived, in seconds of one worker, discounted over time."""
    totals: CandidateTotals = CandidateTotals()
    chosen: int = -1
    """Index into `CANDIDATES`; -1: not enough evidence yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationParameters:
    """The properties of endpoint and machines that the evaluation assumes."""

    worker_load_per_second: float
    """Load that one worker processes, load/s."""
    service_seconds: float
    """How long a request occupies one worker."""
    start_seconds: float
    """Time from the decision to a ready worker."""
    lead_seconds: float
    """How long before seasonal load its workers are started."""
    billed_seconds: float
    """Cost of a start, in seconds of a running worker."""
    target_queue_seconds: float
    """How long a request may wait: `target_queue_time`."""
    late_price: LatePrice


def demand_window_seconds(queue_seconds: float, service_seconds: float, tuning: Tuning) -> float:
    """The window over which arrivals are averaged to give the capacity that they need.

    Work that may wait for T seconds and runs for s seconds can be spread over T + s: ten simultaneous requests of 5 s
    need four workers, not ten, if each may wait for 10 s.
    """
    return min(
        max(queue_seconds + service_seconds, tuning.demand_window_seconds_min),
        tuning.demand_window_seconds_max,
    )


def evaluate(
    state: KeepaliveState, history: LoadHistory, parameters: EvaluationParameters, tuning: Tuning
) -> KeepaliveState:
    """The state after all complete buckets of the history that it does not contain yet."""
    too_small = parameters.worker_load_per_second < _WORKER_LOAD_MIN
    if history.known_until is None or history.known_since is None or too_small:
        return state
    # Engines report at different times. A bucket is complete once every engine has reported it.
    reported_until = min((engine.at for engine in history.engines), default=history.known_until)
    end = reported_until // BUCKET_SECONDS * BUCKET_SECONDS
    begin = state.evaluated_until or max(history.known_since, end - 300.0) // BUCKET_SECONDS * BUCKET_SECONDS
    steps = int((end - begin) / BUCKET_SECONDS)
    if steps <= 0:
        return state
    evaluator = _Evaluator.resume(state, history, parameters, tuning, began_at=state.began_at or begin)
    if steps > _STEPS_MAX:
        evaluator.discount((steps - _STEPS_MAX) * BUCKET_SECONDS)
        begin, steps = end - _STEPS_MAX * BUCKET_SECONDS, _STEPS_MAX
    evaluator.run(begin, steps)
    return evaluator.state(end)


@dataclass(slots=True, kw_only=True)
class _Evaluator:
    """The working copy of `KeepaliveState` during an evaluation."""

    parameters: EvaluationParameters
    tuning: Tuning
    loads: dict[float, float]
    began_at: float
    start_buckets: int
    start_cost_seconds: float
    recent_demand: list[float]
    peaks: list[tuple[float, float]]
    minute_peaks: list[float]
    last_minute: int | None
    work: float
    totals: CandidateTotals
    chosen: int

    @classmethod
    def resume(
        cls,
        state: KeepaliveState,
        history: LoadHistory,
        parameters: EvaluationParameters,
        tuning: Tuning,
        *,
        began_at: float,
    ) -> "_Evaluator":
        start_buckets = max(1, round(parameters.start_seconds / BUCKET_SECONDS))
        # Totals of another set of candidates cannot be continued.
        comparable = len(state.totals) == len(CANDIDATES)
        return cls(
            parameters=parameters,
            tuning=tuning,
            loads=dict(history.seconds),
            began_at=began_at,
            start_buckets=start_buckets,
            start_cost_seconds=parameters.billed_seconds * tuning.start_cost_factor,
            recent_demand=list(state.recent_demand[-start_buckets:]),
            peaks=list(state.peaks),
            minute_peaks=list(state.minute_peaks) or [0.0] * SEASON_MINUTES,
            # Of the last evaluated bucket: the minute that begins at `evaluated_until` still holds an old peak.
            last_minute=int((state.evaluated_until - BUCKET_SECONDS) // MINUTE_SECONDS)
            if state.evaluated_until
            else None,
            work=state.work,
            totals=state.totals if comparable else CandidateTotals.zero(),
            chosen=state.chosen if comparable else -1,
        )

    def discount(self, seconds: float) -> None:
        """Apply the discount of a time without arrivals, hot workers or expected load."""
        share = math.exp(-seconds / self.tuning.keepalive_memory_seconds)
        self.work *= share
        self.totals = replace(
            CandidateTotals.zero(),
            late_work=tuple([late * share for late in self.totals.late_work]),
            paid_seconds=tuple([paid * share for paid in self.totals.paid_seconds]),
        )
        self.recent_demand, self.peaks = [], []

    def run(self, begin: float, steps: int) -> None:
        width, loads = BUCKET_SECONDS, self.loads
        window = demand_window_seconds(
            self.parameters.target_queue_seconds, self.parameters.service_seconds, self.tuning
        )
        buckets = max(1, math.ceil(window / width))
        inside = sum(loads.get(begin - number * width, 0.0) for number in range(1, buckets + 1))
        for step in range(steps):
            at = begin + step * width
            arrived = loads.get(at, 0.0)
            inside += arrived - loads.get(at - buckets * width, 0.0)
            demand = max(inside, 0.0) / (buckets * width)
            self._record_minute(at, demand)
            self._step(at, arrived, demand)

    def _record_minute(self, at: float, demand: float) -> None:
        minute = int(at // MINUTE_SECONDS)
        before = minute if self.last_minute is None else self.last_minute
        for number in range(max(before + 1, minute - SEASON_MINUTES + 1), minute + 1):
            self.minute_peaks[number % SEASON_MINUTES] = 0.0
        self.last_minute = minute
        index = minute % SEASON_MINUTES
        self.minute_peaks[index] = max(self.minute_peaks[index], round(demand, 2))

    def _step(self, at: float, arrived: float, demand: float) -> None:
        self.recent_demand.append(demand)
        if len(self.recent_demand) > self.start_buckets:
            seen = self.recent_demand.pop(0)
            while self.peaks and self.peaks[-1][1] <= seen:
                self.peaks.pop()
            self.peaks.append((at, seen))
        while self.peaks and self.peaks[0][0] <= at - HOLD_SECONDS[-1]:
            self.peaks.pop(0)
        share = math.exp(-BUCKET_SECONDS / self.tuning.keepalive_memory_seconds)
        work = arrived / self.parameters.worker_load_per_second
        self.work = self.work * share + work
        has_started = at - self.began_at >= self.parameters.start_seconds
        demanded = demand / self.parameters.worker_load_per_second
        self.totals = self._totals_after(
            self._hot_workers(at), work, share, demanded, has_started=has_started
        )

    def _hot_workers(self, at: float) -> list[int]:
        """The number of hot workers of each candidate now."""
        unit = self.parameters.worker_load_per_second
        expected = seasonal_level(self.minute_peaks, at, self.parameters.lead_seconds, self.tuning)
        slack = self.tuning.worker_rounding_share
        levels, plain, seasonal = [], [], []
        last, count, prepared = -1.0, 0, 0
        peaks, first = self.peaks, len(self.peaks)
        for hold in HOLD_SECONDS:
            # Peaks fall and hold times grow, so the highest held peak moves towards the front of the list.
            while first and peaks[first - 1][0] > at - hold:
                first -= 1
            level = peaks[first][1] if first < len(peaks) else 0.0
            if level != last:
                last, count = level, math.ceil(level / unit - slack)
                prepared = count if level >= expected else math.ceil(expected / unit - slack)
            levels.append(level / unit)
            plain.append(count)
            seasonal.append(prepared)
        spared = [math.ceil(levels[hold] * factor - slack) for hold, factor in _SPARES]
        with_tail = [
            max(plain[hold], math.ceil(levels[longer] * share - slack)) for hold, longer, share in _TAIL_HOLDS
        ]
        return plain + seasonal + spared + with_tail

    def _totals_after(
        self, hot: list[int], work: float, share: float, demanded: float, *, has_started: bool
    ) -> CandidateTotals:
        """The totals one bucket later. `work` arrived; `hot` are the workers of each candidate, `demanded` are needed.

        A request runs on one worker for a fixed time, so pending work divided by that time is a number of requests.
        """
        parameters, width, price = self.parameters, BUCKET_SECONDS, self.start_cost_seconds
        service = min(parameters.service_seconds, _SERVICE_SECONDS_MAX)
        patience = parameters.target_queue_seconds + service
        arriving = work / max(service, width)
        # Requests that run much longer than they may wait do not queue as a fluid: a request that finds all workers
        # busy is late, however little pending work there is.
        blocked = work * max(0.0, (service - parameters.target_queue_seconds) / patience) * has_started
        pending_column: list[float] = []
        over_column: list[float] = []
        late_column: list[float] = []
        paid_column: list[float] = []
        totals = self.totals
        for before, was_over, was_late, was_paid, was_hot, now in zip(
            totals.pending_work,
            totals.over_limit_seconds,
            totals.late_work,
            totals.paid_seconds,
            totals.workers,
            hot,
            strict=True,
        ):
            # This loop runs for each candidate and bucket: min() and max() calls are written out.
            busy = before / service + arriving
            done = (now if now <= busy else busy) * width  # noqa: FURB136 - the call is what is saved
            pending = before + work - done
            if pending < 0.0:
                pending = 0.0
            paid = was_paid * share + now * width
            if now > was_hot:
                paid += (now - was_hot) * price
            late = blocked * (1.0 - now / demanded) if demanded > now else 0.0
            over = 0.0
            if pending > now * patience:
                # Deadline-aware queue: late requests yield to others, so only work beyond the capacity is late.
                beyond = min(pending - now * patience, work - done)
                late = max(late, beyond * has_started)
                over = was_over + width
                if over >= parameters.start_seconds:
                    # After a start time the missing capacity is ready and clears the backlog.
                    pending = over = 0.0
            pending_column.append(pending)
            over_column.append(over)
            late_column.append(was_late * share + late)
            paid_column.append(paid)
        return CandidateTotals(
            pending_work=tuple(pending_column),
            over_limit_seconds=tuple(over_column),
            late_work=tuple(late_column),
            paid_seconds=tuple(paid_column),
            workers=tuple(hot),
        )

    def state(self, end: float) -> KeepaliveState:
        """The state to keep, rounded to limit its size."""
        totals = replace(
            self.totals,
            pending_work=tuple([each and round(each, 2) for each in self.totals.pending_work]),
            late_work=tuple([each and round(each, 2) for each in self.totals.late_work]),
            paid_seconds=tuple([round(each, 1) for each in self.totals.paid_seconds]),
        )
        chosen = self.chosen
        age = end - self.began_at
        if age >= self.tuning.keepalive_evidence_seconds_min and self.work > 0:
            young = age < self.tuning.young_endpoint_seconds
            chosen = cheapest(
                totals.late_work,
                totals.paid_seconds,
                self.work,
                chosen,
                self.tuning,
                price=self.parameters.late_price,
                young=young,
            )
        return KeepaliveState(
            evaluated_until=end,
            began_at=self.began_at,
            recent_demand=tuple(round(demand, 3) for demand in self.recent_demand),
            peaks=merge_closest_peaks([(at, round(level, 3)) for at, level in self.peaks]),
            minute_peaks=tuple(self.minute_peaks) if any(self.minute_peaks) else (),
            work=round(self.work, 3),
            totals=totals,
            chosen=chosen,
        )


def chosen_retention(state: KeepaliveState, tuning: Tuning) -> Retention:
    """The rule in use: the chosen candidate, or the default hold time while there is not enough evidence."""
    if state.chosen < 0 or len(state.totals) != len(CANDIDATES):
        return Retention(tuning.hot_hold_seconds_default)
    return CANDIDATES[state.chosen]


def peak_demand_since(state: KeepaliveState, moment: float) -> float:
    """The peak demand of the buckets that ended after `moment`, load/s; 0: none was evaluated."""
    count = math.ceil((state.evaluated_until - moment) / BUCKET_SECONDS)
    return max(state.recent_demand[-count:], default=0.0) if count > 0 else 0.0
