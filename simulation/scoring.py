"""The results of a run: waits, cost, and capacity that was missing or idle."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

from simulation.world import Sample, World


@dataclass(frozen=True, slots=True, kw_only=True)
class RunScore:
    """One run, scored. Seconds, dollars, GPU-hours; rates are per hour of the trace."""

    trace: str
    scaler: str
    requests: int
    hours: float
    within_2: float
    """Share of requests that waited at most 2 s."""
    within_10: float
    wait_p50: float
    wait_p99: float
    wait_mean: float
    """Of the requests that started."""
    wait_p999: float
    """Infinite if that share never started."""
    response_p99: float
    dollars: float
    dollars_by_state: dict[str, float]
    gpu_hours_by_state: dict[str, float]
    utilisation: float
    """Busy share of the time that workers were ready."""
    over_hours: float
    """Worker-hours ready and idle: the over-provisioned area."""
    under_hours: float
    """Request-hours without a worker: the under-provisioned area."""
    starts_per_hour: float
    stops_per_hour: float
    creates_per_hour: float
    failures: int
    lost_requests: int
    """Services interrupted by a stopped or outbid machine; each request was served again."""
    work: float
    """Scored work, load."""
    samples: tuple[Sample, ...]


def score(world: World) -> RunScore:
    """Computes the results of a finished world."""
    begin, end = world.score_from, world.trace.seconds
    times, works = world.trace.times, world.trace.works
    scored = [number for number, at in enumerate(times) if at >= begin]
    started, finished = world.dispatcher.started, world.dispatcher.finished
    all_waits = [start - at if start >= 0 else math.inf for start, at in zip(started, times, strict=True)]
    waits = sorted(all_waits[n] for n in scored)
    responses = sorted(finished[n] - times[n] if finished[n] >= 0 else math.inf for n in scored)
    hours = max(end - begin, 1e-9) / 3600.0
    final, before = world.final, world.before
    dollars = {name: spent - before.dollars[name] for name, spent in final.dollars.items()}
    gpu = {name: used - before.gpu_hours[name] for name, used in final.gpu_hours.items()}
    counts = {name: count - before.counts[name] for name, count in final.counts.items()}
    busy = (final.busy_seconds - before.busy_seconds) / 3600.0
    return RunScore(
        trace=world.trace.name,
        scaler=world.controller.name,
        requests=len(scored),
        hours=hours,
        within_2=_share(waits, 2.0),
        within_10=_share(waits, 10.0),
        wait_p50=quantile(waits, 0.5),
        wait_p99=quantile(waits, 0.99),
        wait_mean=_mean([wait for wait in waits if wait < math.inf]),
        wait_p999=quantile(waits, 0.999),
        response_p99=quantile(responses, 0.99),
        dollars=sum(dollars.values()),
        dollars_by_state=dollars,
        gpu_hours_by_state=gpu,
        utilisation=busy / gpu["ready"] if gpu["ready"] > 0 else 0.0,
        over_hours=final.over_hours,
        under_hours=final.under_hours,
        starts_per_hour=counts["starts"] / hours,
        stops_per_hour=counts["stops"] / hours,
        creates_per_hour=counts["creates"] / hours,
        failures=counts["failures"],
        lost_requests=counts["lost_requests"],
        work=sum(works[n] for n in scored),
        samples=_samples(world, all_waits),
    )


def _samples(world: World, waits: Sequence[float]) -> tuple[Sample, ...]:
    """The samples of the scored part, counted from its begin, with their arrivals."""
    begin, trace, before = world.score_from, world.trace, world.samples
    samples = [replace(each, at=each.at - begin) for each in before if each.at > begin]
    ends = [each.at for each in samples]
    for at, work, wait in zip(trace.times, trace.works, waits, strict=True):
        number = bisect_left(ends, at - begin)
        if at >= begin and number < len(samples):
            samples[number].load += work / world.sample_seconds
            samples[number].worst_wait = max(samples[number].worst_wait, min(wait, before[-1].at - at))
    return tuple(samples)


def quantile(ordered: list[float], share: float) -> float:
    """The quantile: the smallest value that at least this share does not exceed; 0 for an empty list."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered), max(1, math.ceil(share * len(ordered)))) - 1]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _share(ordered: list[float], limit: float) -> float:
    if not ordered:
        return 1.0
    return sum(value <= limit + 1e-9 for value in ordered) / len(ordered)
