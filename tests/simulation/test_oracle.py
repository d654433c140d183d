"""The clairvoyant's cost, against brute force on cases small enough for it."""

import itertools
import random

import pytest

from simulation.oracle import Prices, lower_bound, schedule

PRICES = Prices(start=5.0, create=5.0, cold=0.0, dollars_per_hour=0.42)
SLACK = 3


def _cheapest(times, services, misses):
    """The optimum: every way to give requests to workers and to delay them by whole seconds, for whole-second data."""
    best = float("inf")
    for given_up in itertools.chain.from_iterable(
        itertools.combinations(range(len(times)), k) for k in range(misses + 1)
    ):
        late = sum(services[n] for n in given_up)
        rest = [n for n in range(len(times)) if n not in given_up]
        best = min(best, late + _place(rest, times, services, ()))
    return best


def _place(rest, times, services, lines):
    """The least that is still to pay for these requests, in order of arrival; `lines` is when each worker is free."""
    if not rest:
        return 0.0
    request, *others = rest
    best = float("inf")
    for begin in range(times[request], times[request] + SLACK + 1):
        end = begin + services[request]
        best = min(best, 5.0 + services[request] + _place(others, times, services, (*lines, end)))
        for index, free in enumerate(lines):
            if free <= begin and lines.index(free) == index:
                through = min(begin - free, 5.0)
                moved = (*lines[:index], end, *lines[index + 1 :])
                best = min(best, through + services[request] + _place(others, times, services, moved))
    return best


def _case(seed):
    chance = random.Random(seed)
    times = sorted(chance.randrange(0, 25) for _ in range(5))
    return times, [chance.randrange(1, 7) for _ in times]


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("misses", [0, 1])
def test_the_truth_lies_between_the_bound_and_the_schedule(seed, misses):
    times, services = _case(seed)
    share = misses / len(times)
    best = _cheapest(times, services, misses)
    made = schedule(times, services, PRICES, slack=SLACK, miss_share=share)
    below = lower_bound(times, services, PRICES, step=1.0, slack=SLACK, miss_share=share, tries=12)
    assert below <= best + 1e-6
    assert made.seconds >= best - 1e-6
    assert made.missed <= misses
    assert made.seconds <= 1.35 * best


def test_both_find_the_optimum_where_nothing_can_be_shifted():
    # two requests far apart: each is a start and its work
    times, services = [0, 100], [4, 2]
    assert schedule(times, services, PRICES, slack=SLACK, miss_share=0).seconds == pytest.approx(16.0)
    bound = lower_bound(times, services, PRICES, step=1.0, slack=SLACK, miss_share=0)
    assert bound == pytest.approx(16.0, abs=2.0)


def test_an_idle_gap_costs_the_cheapest_way_through():
    prices = Prices(start=25.0, create=235.0, cold=0.024, dollars_per_hour=0.42)
    assert prices.gap(20.0) == 20.0
    assert prices.gap(125.0) == pytest.approx(25.0 + 0.024 * 100.0)
    assert prices.gap(1e6) == 235.0
    released = Prices(start=25.0, create=235.0, cold=0.024, dollars_per_hour=0.42, cold_pool=False)
    assert released.gap(200.0) == 200.0


def test_giving_up_one_percent_never_costs_more():
    chance = random.Random(3)
    times, at = [], 0.0
    for _ in range(400):
        at += chance.expovariate(1 / 20.0)
        times.append(at)
    services = [chance.uniform(1.0, 8.0) for _ in times]
    prices = Prices(start=25.0, create=235.0, cold=0.024, dollars_per_hour=0.42)
    strict = schedule(times, services, prices, miss_share=0.0)
    loose = schedule(times, services, prices)
    assert loose.seconds <= strict.seconds
    assert loose.missed <= 4
    assert lower_bound(times, services, prices, step=2.0, tries=4) <= loose.seconds
