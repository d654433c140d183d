"""Means over the last seconds, from samples that a rule takes at its own period."""

from collections import deque


class Mean:
    """The mean of samples not older than `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._samples: deque[tuple[float, float]] = deque()
        self._sum = 0.0

    def add(self, now: float, value: float) -> float:
        """Adds a sample; returns the mean."""
        self._samples.append((now, value))
        self._sum += value
        while self._samples[0][0] <= now - self._seconds:
            self._sum -= self._samples.popleft()[1]
        return self._sum / len(self._samples)


class Rate:
    """The growth rate of a counter over the last `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._samples: deque[tuple[float, float]] = deque()

    def add(self, now: float, counter: float) -> float:
        """Adds a sample; returns growth per second over the whole window, even while it is not full."""
        self._samples.append((now, counter))
        while len(self._samples) > 1 and self._samples[1][0] <= now - self._seconds:
            self._samples.popleft()
        return (counter - self._samples[0][1]) / self._seconds


class Peak:
    """The largest sample of the last `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._samples: deque[tuple[float, float]] = deque()

    def add(self, now: float, value: float) -> float:
        """Adds a sample; returns the largest."""
        while self._samples and self._samples[-1][1] <= value:
            self._samples.pop()
        self._samples.append((now, value))
        while self._samples[0][0] <= now - self._seconds:
            self._samples.popleft()
        return self._samples[0][1]
