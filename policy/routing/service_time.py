"""Service times relative to declared cost, learned per endpoint from requests that ended. Pure.

Declared costs are estimates. The remaining time of a running request is the mean of what longer requests took beyond
its present age: a mean residual life, read from a histogram.
"""

import itertools
import math

from policy.tuning import DEFAULT_TUNING

_STEPS = 8
"""Bins per octave of (seconds taken x perf) / declared cost."""
_OCTAVES = 5
"""The histogram covers ratios from 1/32 to 32."""
_BINS = 2 * _OCTAVES * _STEPS
_TABULATE_EVERY = 16
"""Requests learned between two updates of the cumulative sums."""
_EDGES = tuple(2.0 ** (number / _STEPS - _OCTAVES) for number in range(_BINS + 1))
_CENTRES = tuple(math.sqrt(low * high) for low, high in itertools.pairwise(_EDGES))


class ServiceTimes:
    """Histogram of actual ÷ declared service time, from workers that run one request at a time."""

    __slots__ = (
        "_above",
        "_gain",
        "_mean_ratio",
        "_mean_seconds",
        "_sum_above",
        "_untabulated",
        "_weights",
        "count",
    )

    def __init__(self) -> None:
        first, last = (_OCTAVES - 1) * _STEPS, (_OCTAVES + 1) * _STEPS
        self._weights = [
            DEFAULT_TUNING.service_time_prior_requests / (last - first) if first <= n < last else 0.0
            for n in range(_BINS)
        ]
        self._gain = 1.0
        self._mean_seconds = 0.0
        self.count = 0
        """Number of requests learned from."""
        self._untabulated = 0
        self._tabulate()

    def __repr__(self) -> str:
        means = f"{self._mean_ratio:.2f} of declared, {self._mean_seconds:.3g} s"
        return f"<ServiceTimes of {self.count} requests, {means}>"

    def learn(self, cost: float, perf: float, seconds: float) -> None:
        """Add a request of this declared cost that kept a worker of this perf busy for this time."""
        if cost <= 0 or perf <= 0 or seconds <= 0:
            return
        # Clients choose costs freely: the quotient itself may overflow a float.
        octaves = math.log2(seconds) + math.log2(perf) - math.log2(cost)
        at = math.floor((octaves + _OCTAVES) * _STEPS)
        self._gain /= DEFAULT_TUNING.service_time_decay
        self._weights[min(max(at, 0), _BINS - 1)] += self._gain
        self.count += 1
        self._mean_seconds += (seconds - self._mean_seconds) / min(self.count, 500)
        self._untabulated += 1
        if self._untabulated >= _TABULATE_EVERY:
            self._tabulate()

    @property
    def mean_ratio(self) -> float:
        """Mean service time as a multiple of the declared one."""
        return self._mean_ratio

    @property
    def mean_seconds(self) -> float:
        """Mean service time; 0: too few requests have ended."""
        return self._mean_seconds if self.count >= DEFAULT_TUNING.service_time_samples_min else 0.0

    def remaining(self, done: float) -> float:
        """Expected remaining time of a request of age `done`; both are multiples of its declared time."""
        if done <= _EDGES[0]:
            return self._mean_ratio - done
        if done >= _EDGES[-1]:
            return DEFAULT_TUNING.service_time_tail * done
        position = (math.log2(done) + _OCTAVES) * _STEPS
        at = min(int(position), _BINS - 1)
        share = at + 1 - position
        partly = self._weights[at] * share
        weight = partly + self._above[at]
        if weight <= 1e-3 * self._above[0]:
            return DEFAULT_TUNING.service_time_tail * done
        total = partly * math.sqrt(done * _EDGES[at + 1]) + self._sum_above[at]
        return max(total / weight - done, DEFAULT_TUNING.service_time_remaining_min * done)

    def _tabulate(self) -> None:
        self._untabulated = 0
        if self._gain > 1e6:
            self._weights = [weight / self._gain for weight in self._weights]
            self._gain = 1.0
        above, total = [0.0] * _BINS, [0.0] * _BINS
        for at in range(_BINS - 2, -1, -1):
            above[at] = above[at + 1] + self._weights[at + 1]
            total[at] = total[at + 1] + self._weights[at + 1] * _CENTRES[at + 1]
        self._above, self._sum_above = above, total
        first = self._weights[0]
        self._mean_ratio = (total[0] + first * _CENTRES[0]) / (above[0] + first)
