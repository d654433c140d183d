"""How long requests really take beside what they declare: learned from those that ended, per endpoint. Pure.

A declared cost is a promise that nobody keeps exactly. What one request may still take is read from all before it: of
those that had got as far as this one, how much further did they go?
"""

import itertools
import math

_STEPS = 8
"""Bins per octave of (seconds taken x perf) / declared cost."""
_OCTAVES = 5
"""From 1/32 to 32 times what was declared."""
_BINS = 2 * _OCTAVES * _STEPS
_KEEP = 0.998
"""Each ended request counts so much less than the next: half as much after 350."""
_PRIOR = 20.0
"""Requests' worth of belief that costs are right within a factor of two, even in the logarithm."""
_FRESHEN = 16
"""Requests learned before the table is made anew."""
_KNOWN = 20
"""Requests that have ended before the mean time of one is believed."""
_TAIL = 0.25
"""One that has gone beyond all others takes a quarter of that again."""
_LEAST = 0.02
_EDGES = tuple(2.0 ** (number / _STEPS - _OCTAVES) for number in range(_BINS + 1))
_CENTRES = tuple(math.sqrt(low * high) for low, high in itertools.pairwise(_EDGES))


class ServiceTimes:
    """Ended requests of workers that take one at a time, as a histogram of taken ÷ declared."""

    __slots__ = ("_above", "_fresh", "_gain", "_mean", "_seconds", "_sum_above", "_weights", "count")

    def __init__(self) -> None:
        first, last = (_OCTAVES - 1) * _STEPS, (_OCTAVES + 1) * _STEPS
        self._weights = [_PRIOR / (last - first) if first <= n < last else 0.0 for n in range(_BINS)]
        self._gain = 1.0
        self._seconds = 0.0
        self.count = 0
        """Requests learned from."""
        self._fresh = 0
        self._tabulate()

    def __repr__(self) -> str:
        return f"<ServiceTimes of {self.count} requests, {self._mean:.2f} of declared, {self._seconds:.3g} s>"

    def learn(self, cost: float, perf: float, seconds: float) -> None:
        """A request of this declared cost occupied a worker of this perf for so long."""
        if cost <= 0 or perf <= 0 or seconds <= 0:
            return
        # the quotient itself may be beyond all floats: anybody declares costs
        octaves = math.log2(seconds) + math.log2(perf) - math.log2(cost)
        at = math.floor((octaves + _OCTAVES) * _STEPS)
        self._gain /= _KEEP
        self._weights[min(max(at, 0), _BINS - 1)] += self._gain
        self.count += 1
        self._seconds += (seconds - self._seconds) / min(self.count, 500)
        self._fresh += 1
        if self._fresh >= _FRESHEN:
            self._tabulate()

    @property
    def mean(self) -> float:
        """What a request takes on average, as a multiple of what it declares."""
        return self._mean

    @property
    def seconds(self) -> float:
        """What a request takes on average; 0: too few have ended to say."""
        return self._seconds if self.count >= _KNOWN else 0.0

    def remaining(self, done: float) -> float:
        """What one that has taken `done` (both as multiples of what it declared) is expected to take further."""
        if done <= _EDGES[0]:
            return self._mean - done
        if done >= _EDGES[-1]:
            return _TAIL * done
        position = (math.log2(done) + _OCTAVES) * _STEPS
        at = min(int(position), _BINS - 1)
        share = at + 1 - position
        partly = self._weights[at] * share
        weight = partly + self._above[at]
        if weight <= 1e-3 * self._above[0]:
            return _TAIL * done
        total = partly * math.sqrt(done * _EDGES[at + 1]) + self._sum_above[at]
        return max(total / weight - done, _LEAST * done)

    def _tabulate(self) -> None:
        self._fresh = 0
        if self._gain > 1e6:
            self._weights = [weight / self._gain for weight in self._weights]
            self._gain = 1.0
        above, total = [0.0] * _BINS, [0.0] * _BINS
        for at in range(_BINS - 2, -1, -1):
            above[at] = above[at + 1] + self._weights[at + 1]
            total[at] = total[at + 1] + self._weights[at + 1] * _CENTRES[at + 1]
        self._above, self._sum_above = above, total
        first = self._weights[0]
        self._mean = (total[0] + first * _CENTRES[0]) / (above[0] + first)
