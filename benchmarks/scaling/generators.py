"""Seeded traffic: daily curves, bursts, flash crowds, on and off, sparse."""

import math
import random
from collections.abc import Callable

from simulation.trace import Trace

DAY_SECONDS = 86_400.0


def diurnal(
    *, requests: int, days: float = 1.0, depth: float = 0.8, cost_cv: float = 0.8, seed: int = 0
) -> Trace:
    """A daily curve: the rate varies by `depth` around its mean, lowest at midnight."""
    mean = requests / (days * DAY_SECONDS)

    def rate(at: float) -> float:
        return mean * (1.0 - depth * math.cos(2.0 * math.pi * at / DAY_SECONDS))

    return _poisson("diurnal", rate, mean * (1.0 + depth), days * DAY_SECONDS, cost_cv, seed)


def bursty(
    *, requests: int, hours: float = 8.0, ratio: float = 10.0, calm_seconds: float = 600.0,
    burst_seconds: float = 60.0, cost_cv: float = 0.8, seed: int = 0,
) -> Trace:  # fmt: skip
    """A Markov-modulated Poisson process: calm, and bursts of `ratio` times its rate, of exponential lengths."""
    chance = random.Random(f"{seed} states")
    seconds = hours * 3600.0
    share = burst_seconds / (calm_seconds + burst_seconds)
    low = requests / seconds / (1.0 - share + ratio * share)
    edges, at, is_burst = [0.0], 0.0, False
    while at < seconds:
        at += chance.expovariate(1.0 / (burst_seconds if is_burst else calm_seconds))
        edges.append(at)
        is_burst = not is_burst
    state = _Steps(edges)
    return _poisson(
        "bursty", lambda t: low * (ratio if state.at(t) % 2 else 1.0), low * ratio, seconds, cost_cv, seed
    )


def flash_crowd(
    *, requests: int, hours: float = 4.0, ratio: float = 12.0, at_share: float = 0.5,
    rise_seconds: float = 30.0, fade_seconds: float = 900.0, cost_cv: float = 0.8, seed: int = 0,
) -> Trace:  # fmt: skip
    """A steady rate with one crowd: it rises within `rise_seconds` and decays exponentially."""
    seconds = hours * 3600.0
    extra = (ratio - 1.0) * fade_seconds
    base = requests / (seconds + extra)
    begin = seconds * at_share

    def rate(at: float) -> float:
        if at < begin:
            return base
        up = min(1.0, (at - begin) / rise_seconds)
        return base * (
            1.0 + (ratio - 1.0) * up * math.exp(-max(0.0, at - begin - rise_seconds) / fade_seconds)
        )

    return _poisson("flash crowd", rate, base * ratio, seconds, cost_cv, seed)


def on_off(
    *, requests: int, hours: float = 12.0, on_seconds: float = 1800.0, off_seconds: float = 5400.0,
    cost_cv: float = 0.8, seed: int = 0,
) -> Trace:  # fmt: skip
    """Work at a constant rate, alternating with pauses of fixed length."""
    seconds, cycle = hours * 3600.0, on_seconds + off_seconds
    high = requests / seconds * cycle / on_seconds
    return _poisson("on/off", lambda t: high if t % cycle < on_seconds else 0.0, high, seconds, cost_cv, seed)


def sparse(*, requests: int, hours: float = 24.0, cost_cv: float = 0.8, seed: int = 0) -> Trace:
    """Requests so sparse that each one finds the endpoint idle."""
    mean = requests / (hours * 3600.0)
    return _poisson("sparse", lambda _: mean, mean, hours * 3600.0, cost_cv, seed)


def tenant(
    *, requests: int, cv: float, days: int = 5, first_weekday: int = 3, depth: float = 0.8,
    weekend: float = 0.3, cost_cv: float = 2.5, seed: int = 0,
) -> Trace:  # fmt: skip
    """A business tenant: gamma arrivals with this coefficient of variation, office hours, weekends, heavy-tailed sizes.

    The gaps are drawn at rate 1 and stretched by the hourly rates, so the bursts keep their number of requests. Of the
    sizes 5 % are drawn from a Pareto tail. `first_weekday` is 0 for a Monday; the default begins on a Thursday.
    """
    chance = random.Random(f"{seed} tenant {cv:g}")
    hours = [_office_rate(number, first_weekday, depth, weekend) for number in range(days * 24)]
    mean = requests / sum(hours)
    shape = 1.0 / (cv * cv)
    sigma = math.sqrt(math.log(1.0 + cost_cv**2)) / 2.0
    rows: list[tuple[float, float]] = []
    hour, begun, at = 0, 0.0, chance.gammavariate(shape, 1.0 / shape)
    while True:
        while hour < len(hours) and at >= begun + hours[hour] * mean:
            begun += hours[hour] * mean
            hour += 1
        if hour == len(hours):
            return Trace.of(f"tenant cv {cv:g}", rows, seconds=days * DAY_SECONDS)
        size = math.exp(chance.gauss(-sigma * sigma / 2.0, sigma))
        if chance.random() < 0.05:
            size = min(3.0 * chance.paretovariate(1.5), 60.0)
        rows.append(((hour + (at - begun) / (hours[hour] * mean)) * 3600.0, 100.0 * size))
        at += chance.gammavariate(shape, 1.0 / shape)


def _office_rate(hour: int, first_weekday: int, depth: float, weekend: float) -> float:
    """Relative rate of an hour, highest at 14:00."""
    weekday = (first_weekday + hour // 24) % 7
    daily = 1.0 + depth * math.cos(2.0 * math.pi * (hour % 24 - 14) / 24.0)
    return daily * (weekend if weekday >= 5 else 1.0)


class _Steps:
    """The interval of a time that only grows."""

    def __init__(self, edges: list[float]) -> None:
        self._edges = edges
        self._index = 0

    def at(self, time: float) -> int:
        while self._index + 1 < len(self._edges) and self._edges[self._index + 1] <= time:
            self._index += 1
        return self._index


def _poisson(
    name: str, rate: Callable[[float], float], peak: float, seconds: float, cost_cv: float, seed: int
) -> Trace:
    """Arrivals by thinning, work lognormal with mean 100."""
    chance = random.Random(f"{seed} {name}")
    sigma = math.sqrt(math.log(1.0 + cost_cv**2))
    rows: list[tuple[float, float]] = []
    at = 0.0
    while True:
        at += chance.expovariate(peak)
        if at >= seconds:
            return Trace.of(name, rows, seconds=seconds)
        if chance.random() * peak < rate(at):
            rows.append((at, 100.0 * math.exp(chance.gauss(-sigma * sigma / 2.0, sigma))))
