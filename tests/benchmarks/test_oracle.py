"""The clairvoyant's cost against brute force on small cases."""

import itertools
import random

import pytest

from benchmarks.scaling.bounds.oracle import Prices, lower_bound, schedule
from benchmarks.scaling.bounds.staffing import cheapest_schedule, replay

PRICES = Prices(start=5.0, create=5.0, cold=0.0, dollars_per_hour=0.42)
SLACK = 3


def _cheapest(times, services, misses):
    """The optimum over every assignment of requests to workers and every delay in whole seconds."""
    best = float("inf")
    for given_up in itertools.chain.from_iterable(
        itertools.combinations(range(len(times)), k) for k in range(misses + 1)
    ):
        late = sum(services[n] for n in given_up)
        rest = [n for n in range(len(times)) if n not in given_up]
        best = min(best, late + _assign(rest, times, services, ()))
    return best


def _assign(rest, times, services, lines):
    """The lowest remaining cost of these requests, in order of arrival; `lines` is when each worker is free."""
    if not rest:
        return 0.0
    request, *others = rest
    best = float("inf")
    for begin in range(times[request], times[request] + SLACK + 1):
        end = begin + services[request]
        best = min(best, 5.0 + services[request] + _assign(others, times, services, (*lines, end)))
        for index, free in enumerate(lines):
            if free <= begin and lines.index(free) == index:
                through = min(begin - free, 5.0)
                moved = (*lines[:index], end, *lines[index + 1 :])
                best = min(best, through + services[request] + _assign(others, times, services, moved))
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
    staffed = cheapest_schedule(times, services, PRICES, slack=SLACK, miss_share=share, grids=(1.0,), units=1)
    # brute force pays for given-up requests; the replay serves them on idle workers, which saves at most their service
    assert best - misses * max(services) - 1e-6 <= staffed.seconds <= made.seconds
    assert below <= staffed.seconds + 1e-6
    assert staffed.missed <= misses


def test_two_workers_all_the_time_serve_as_two_do():
    # three requests of 4 s at once: two begin at once, the third waits for 4 s; a third step has no work
    served = replay([0.0, 0.0, 0.0], [4.0, 4.0, 4.0], PRICES, [2] * 8, step=1.0, slack=3)
    assert (served.missed, served.workers, served.starts) == (1, 2, 2)
    # the last of them ends after 8 s; until then both run, and each was started for 5 s
    assert served.seconds == pytest.approx(2 * 5.0 + 2 * 8.0)
    assert replay([0.0, 0.0, 0.0], [4.0] * 3, PRICES, [2] * 8, step=1.0, slack=4).missed == 0


def test_a_staffing_without_anybody_misses_everyone_and_still_pays_the_work():
    served = replay([0.0, 5.0], [4.0, 4.0], PRICES, [0, 0], step=1.0, slack=3)
    assert served.missed == 2
    assert served.seconds == pytest.approx(8.0)


def test_a_gap_in_the_staffing_costs_a_start_or_the_wait_whichever_is_less():
    counts = [1] * 4 + [0] * 3 + [1] * 4
    short = replay([0.0, 7.0], [4.0, 4.0], PRICES, counts, step=1.0, slack=3)
    # started once for 5 s, 4 s of work, 3 s through the gap, 4 s of work
    assert short.seconds == pytest.approx(5.0 + 4.0 + 3.0 + 4.0)
    long = replay([0.0, 57.0], [4.0, 4.0], PRICES, [1] * 4 + [0] * 53 + [1] * 4 + [0], step=1.0, slack=3)
    assert long.seconds == pytest.approx(5.0 + 4.0 + 5.0 + 4.0)


def test_the_bound_never_goes_below_the_work_itself():
    times, services = [float(n) for n in range(300)], [1.0] * 300
    assert lower_bound(times, services, PRICES, step=5.0) >= 300.0


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
