"""The peers' rules with their default constants, from their sources and documents of 2026.

Where a peer leaves the size of a replica to its user (queries per second, requests in flight), the user knows the
workload: `service_seconds` is the mean time that one request keeps one worker busy.
"""

import math

from benchmarks.scaling.peers.replicas import Signals
from benchmarks.scaling.peers.windows import Mean, Peak, Rate


class SkyServe:
    """Requests of the last minute over target_qps_per_replica; up after 300 s in a row above, down after 1200 s."""

    name = "SkyServe"

    def __init__(
        self,
        service_seconds: float,
        *,
        utilisation: float = 0.8,
        up_seconds: float = 300.0,
        down_seconds: float = 1200.0,
        tick_seconds: float = 20.0,
        window_seconds: float = 60.0,
    ) -> None:
        self._qps_per_replica = utilisation / service_seconds
        self.period = tick_seconds
        self._rate = Rate(window_seconds)
        self._up_ticks = max(1, int(up_seconds / tick_seconds))
        self._down_ticks = max(1, int(down_seconds / tick_seconds))
        self._above = self._below = 0

    def want(self, signals: Signals, current: int) -> int:
        """One contrary tick resets the count; from zero at once."""
        slots = signals.slots
        target = math.ceil(self._rate.add(signals.now, signals.arrived) / (self._qps_per_replica * slots))
        if current == 0 and target > 0:
            return target
        if target > current:
            self._above, self._below = self._above + 1, 0
            if self._above >= self._up_ticks:
                self._above = 0
                return target
        elif target < current:
            self._above, self._below = 0, self._below + 1
            if self._below >= self._down_ticks:
                self._below = 0
                return target
        else:
            self._above = self._below = 0
        return current


class KnativeKPA:
    """Concurrency over 70 % of what a replica holds; stable 60 s, panic 6 s, scale to zero after 30 s of grace."""

    name = "Knative KPA"
    period = 2.0

    def __init__(
        self,
        *,
        target_share: float = 0.7,
        stable_seconds: float = 60.0,
        panic_seconds: float = 6.0,
        grace_seconds: float = 30.0,
    ) -> None:
        self._share = target_share
        self._stable, self._panic = Mean(stable_seconds), Mean(panic_seconds)
        self._stable_seconds = stable_seconds
        self._grace_seconds = grace_seconds
        self._panic_until = -1.0
        self._panic_most = 0
        self._zero_since: float | None = None

    def want(self, signals: Signals, current: int) -> int:
        """Panic when the short window asks for twice what is ready; in panic never less."""
        target = self._share * signals.slots
        ready = max(signals.ready, 1)
        stable = self._clamped(math.ceil(self._stable.add(signals.now, signals.ongoing) / target), ready)
        panic = self._clamped(math.ceil(self._panic.add(signals.now, signals.ongoing) / target), ready)
        if panic >= 2 * ready:
            if signals.now >= self._panic_until:
                self._panic_most = 0
            self._panic_until = signals.now + self._stable_seconds
        if signals.now < self._panic_until:
            self._panic_most = max(self._panic_most, panic, stable)
            return self._panic_most
        if stable > 0:
            self._zero_since = None
            return stable
        # the result is 0 only with at most one ready; otherwise half of them stay in this round
        self._zero_since = signals.now if self._zero_since is None else self._zero_since
        idle = signals.now - self._zero_since
        return 0 if idle >= self._grace_seconds else min(current, 1)

    @staticmethod
    def _clamped(wanted: int, ready: int) -> int:
        """Clamps to between half of the ready replicas and a thousand times: four idle replicas become two, then one,
        then none."""
        return max(min(wanted, ready * 1000), ready // 2)


class RayServe:
    """Mean ongoing requests of 30 s over 2 per replica; up after 30 s, down after 600 s, from zero at once to one."""

    name = "Ray Serve"
    period = 1.0

    def __init__(
        self,
        *,
        target_ongoing: float = 2.0,
        look_back_seconds: float = 30.0,
        up_seconds: float = 30.0,
        down_seconds: float = 600.0,
    ) -> None:
        self._target = target_ongoing
        self._mean = Mean(look_back_seconds)
        self._up_seconds, self._down_seconds = up_seconds, down_seconds
        self._above_since: float | None = None
        self._below_since: float | None = None

    def want(self, signals: Signals, current: int) -> int:
        """A contrary decision resets the other's clock.

        While no replica runs, only the first is added; and the last one is removed alone.
        """
        ongoing = self._mean.add(signals.now, signals.ongoing)
        target = math.ceil(ongoing / (self._target * signals.slots) - 1e-9)
        if signals.ready == 0:
            return max(1, current) if signals.ongoing else current
        if current > 1:
            target = max(1, target)
        if target > current:
            self._below_since = None
            self._above_since = signals.now if self._above_since is None else self._above_since
            if signals.now - self._above_since >= self._up_seconds:
                self._above_since = None
                return target
        elif target < current:
            self._above_since = None
            self._below_since = signals.now if self._below_since is None else self._below_since
            if signals.now - self._below_since >= self._down_seconds:
                self._below_since = None
                return target
        else:
            self._above_since = self._below_since = None
        return current


class HPA:
    """Busy share over 70 %, every 15 s, tolerance 0.1; up by the larger of twice and four, down to the 5 min maximum."""

    name = "HPA 70 %"
    period = 15.0

    def __init__(self, *, target: float = 0.7, tolerance: float = 0.1, down_seconds: float = 300.0) -> None:
        self._target = target
        self._tolerance = tolerance
        self._most = Peak(down_seconds)

    def want(self, signals: Signals, current: int) -> int:
        """HPA never goes to zero. Every recommendation counts for the five minutes' maximum, those to grow too."""
        current = max(current, 1)
        wanted = max(1, min(self._recommended(signals, current), max(current * 2, current + 4)))
        most = int(self._most.add(signals.now, wanted))
        return wanted if wanted > current else min(current, most)

    def _recommended(self, signals: Signals, current: int) -> int:
        ready = signals.ready
        if ready == 0:
            return current
        ratio = signals.busy / ready / self._target
        if ratio > 1.0 and ready < current:
            # for growth, replicas that are not ready count as idle; if that reverses the decision, it is dropped
            ratio = signals.busy / current / self._target
            if ratio <= 1.0 + self._tolerance:
                return current
            return max(current, math.ceil(current * ratio))
        return current if abs(ratio - 1.0) <= self._tolerance else math.ceil(ready * ratio)


class Dstack:
    """Requests/s of the last minute over the target; up 5 min, down 10 min after the last change that was applied."""

    name = "dstack"
    period = 10.0

    def __init__(
        self,
        service_seconds: float,
        *,
        utilisation: float = 0.8,
        up_seconds: float = 300.0,
        down_seconds: float = 600.0,
    ) -> None:
        self._per_replica = utilisation / service_seconds
        self._rate = Rate(60.0)
        self._up_seconds, self._down_seconds = up_seconds, down_seconds
        self._changed_at = -1e9

    def want(self, signals: Signals, current: int) -> int:
        """Scales up from zero at once."""
        target = math.ceil(self._rate.add(signals.now, signals.arrived) / (self._per_replica * signals.slots))
        age = signals.now - self._changed_at
        due = target > current and (current == 0 or age >= self._up_seconds)
        due = due or (target < current and age >= self._down_seconds)
        if due:
            self._changed_at = signals.now
            return target
        return current


class RunPodQueueDelay:
    """One more worker for as long as the oldest request has waited over 4 s; a worker idle for 5 s is removed."""

    name = "RunPod queue delay"
    period = 1.0

    def __init__(self, *, delay_seconds: float = 4.0, idle_seconds: float = 5.0) -> None:
        self._delay_seconds = delay_seconds
        self._busiest = Peak(idle_seconds)
        self._added_at = -1e9

    def want(self, signals: Signals, current: int) -> int:
        """At most one more per delay, and never more than there are requests."""
        ongoing = math.ceil(signals.ongoing / signals.slots)
        needed = int(self._busiest.add(signals.now, ongoing))
        if signals.oldest_wait > self._delay_seconds and current < ongoing:
            if signals.now - self._added_at >= self._delay_seconds:
                self._added_at = signals.now
                return current + 1
            return current
        return min(current, needed)


class Static:
    """A fixed number of workers."""

    name = "static peak"
    period = 60.0

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def want(self, signals: Signals, current: int) -> int:
        """Returns the fixed number."""
        return self._workers


class VastRule:
    """The documented rule: hot = load ÷ target_util, at once; a queue over target_queue_time asks for more."""

    name = "Vast's documented rule"
    period = 5.0

    def __init__(
        self,
        perf: float,
        *,
        target_util: float = 0.9,
        min_load: float = 1.0,
        window_seconds: float = 60.0,
        target_queue_time: float = 10.0,
    ) -> None:
        self._perf = perf
        self._target_util = target_util
        self._min_load = min_load
        self._target_queue_time = target_queue_time
        self._load = Rate(window_seconds)

    def want(self, signals: Signals, current: int) -> int:
        """Grows by half while the queue is over its target."""
        load = self._load.add(signals.now, signals.arrived_load)
        hot = math.ceil(max(load / self._target_util, self._min_load) / self._perf - 1e-9)
        if signals.oldest_wait > self._target_queue_time:
            hot = max(hot, math.ceil(signals.ready * 1.5), 1)
        return hot
