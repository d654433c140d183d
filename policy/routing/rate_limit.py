"""A rate limit in load per second: a token bucket that may go into debt. Pure."""

from policy.tuning import DEFAULT_TUNING


class RateLimit:
    """Grants `rate` load/s on average, and `Tuning.key_burst_seconds` of it at once.

    A request larger than the whole bucket passes when the bucket is full. The debt delays the next one, so the average
    holds.
    """

    __slots__ = ("_at", "_level", "_rate")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._level = self._capacity
        self._at = now

    def __repr__(self) -> str:
        return f"<RateLimit {self._rate:g} load/s, {self._level:g} left>"

    @property
    def _capacity(self) -> float:
        return self._rate * DEFAULT_TUNING.key_burst_seconds

    def set_rate(self, rate: float, now: float) -> None:
        """Change the rate. The used amount stays used."""
        if rate == self._rate:
            return
        self._fill(now)
        used = self._capacity - self._level
        self._rate = rate
        self._level = self._capacity - used

    def wait_seconds(self, load: float, now: float) -> float:
        """Seconds until a request of this load passes; 0: it passes now."""
        self._fill(now)
        missing = min(load, self._capacity) - self._level
        return max(0.0, missing / self._rate)

    def take(self, load: float, now: float) -> None:
        """Count the load, beyond the limit too."""
        self._fill(now)
        self._level -= load

    def give_back(self, load: float) -> None:
        """The load was not used."""
        self._level = min(self._level + load, self._capacity)

    def _fill(self, now: float) -> None:
        """A clock that goes back grants nothing, and delays nothing afterwards."""
        elapsed = max(0.0, now - self._at)
        self._level = min(self._level + elapsed * self._rate, self._capacity)
        self._at = now
