"""Keep-alive evaluation to the number: cost of a bucket, and late work."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from policy.keepalive.candidates import CANDIDATES, Retention
from policy.keepalive.evaluation import evaluate
from policy.load.history import fold
from policy.tuning import DEFAULT_TUNING
from tests.policy.keepalive.test_keepalive_evaluation import PARAMETERS, START, bursts, evaluated


def last_buckets(count, arrivals, *, seconds, parameters=PARAMETERS):
    """The totals before the last `count` buckets and after each of them."""
    state, history = evaluated(arrivals, seconds=seconds - 5 * count, every=5 * 19, parameters=parameters)
    found = []
    for end in range(seconds - 5 * count, seconds + 1, 5):
        if found:
            load = arrivals(end - 5) * 5.0
            history = fold(
                history, engine_id="e", sequence=end, at=START + end, window_s=5.0, load=load, requests=1
            )
        state = evaluate(state, history, parameters, DEFAULT_TUNING)
        assert state.evaluated_until == START + end
        found.append(state.totals)
    return found


KEPT_SHARE = math.exp(-5.0 / DEFAULT_TUNING.keepalive_memory_seconds)
A_MINUTE = CANDIDATES.index(Retention(60.0))


def late_in_each(totals):
    """The work that is late in each bucket, where a hold of one minute applies."""
    late = [each.late_work[A_MINUTE] for each in totals]
    return [after - before * KEPT_SHARE for before, after in pairwise(late)]


def test_work_is_late_as_far_as_it_cannot_wait():
    # One hot worker, and work for two: 5 worker-seconds more wait after each bucket. 11 may wait, so of the third
    # bucket 4 are late, and of the fourth all 5.
    slow = replace(PARAMETERS, start_seconds=300.0)
    totals = last_buckets(4, lambda at: 100.0 if at < 900 else 200.0, seconds=920, parameters=slow)
    assert late_in_each(totals) == pytest.approx([0.0, 0.0, 4.0, 5.0], abs=0.02)


def test_a_long_request_is_late_if_it_finds_all_workers_busy():
    # 8 workers are hot. Over the window of 110 s, 8.09 are needed; 90 of 110 s of the work are longer than the wait.
    long = replace(PARAMETERS, service_seconds=100.0, start_seconds=60.0)
    totals = last_buckets(1, lambda at: 800.0 if at < 900 else 1000.0, seconds=905, parameters=long)
    demanded = (800.0 * 105 + 1000.0 * 5) / 110 / 100
    assert late_in_each(totals) == pytest.approx([50 * 90 / 110 * (1 - 8 / demanded)], abs=0.02)


def test_every_bucket_costs_its_hot_workers_and_every_start_its_price():
    price = PARAMETERS.billed_seconds * DEFAULT_TUNING.start_cost_factor
    starts = 0
    for before, after in pairwise(last_buckets(8, lambda at: 200.0 if at < 290 else 700.0, seconds=330)):
        for number, (was, now) in enumerate(zip(before.workers, after.workers, strict=True)):
            paid = before.paid_seconds[number] * KEPT_SHARE + now * 5.0 + max(0, now - was) * price
            assert after.paid_seconds[number] == pytest.approx(paid, abs=0.2)
            starts += now > was > 0
    assert starts > 0


def test_a_start_that_ends_within_a_bucket_clears_the_queue():
    # 5 workers' work and none is hot: 25 worker-seconds per bucket, until a start has ended after 23 s
    started = replace(PARAMETERS, start_seconds=23.0)
    totals = last_buckets(6, lambda at: 500.0 if at >= 300 else 0.0, seconds=330, parameters=started)
    waiting = [each.pending_work[A_MINUTE] for each in totals]
    assert waiting[:6] == [0.0, 25.0, 50.0, 75.0, 100.0, 0.0]


def test_arrivals_after_a_gap_of_days_count():
    state, history = evaluated(bursts(seconds=20, every=150), seconds=600)
    end = START + 4 * 86_400.0
    history = fold(history, engine_id="e", sequence=9999, at=end, window_s=60.0, load=12_000.0, requests=10)
    after = evaluate(state, history, PARAMETERS, DEFAULT_TUNING)
    assert after.work == pytest.approx(120.0, rel=0.02)
    assert max(after.minute_peaks) == pytest.approx(200.0)


def test_a_tail_is_a_part_of_the_level_and_spare_capacity_comes_on_top():
    assert {each.tail_share for each in CANDIDATES if each.tail_share} == {0.3, 0.5, 0.7}
    assert all(each.tail_seconds > each.seconds for each in CANDIDATES if each.tail_share)


def test_the_stored_totals_are_rounded():
    slow = replace(PARAMETERS, start_seconds=300.0)
    state, _ = evaluated(lambda at: 100.0 if at < 900 else 217.137, seconds=925, parameters=slow, every=5)
    for column in (state.totals.pending_work, state.totals.late_work):
        assert any(column)
        assert all(each == round(each, 2) for each in column)


@pytest.mark.parametrize("every", [5, 60, 95])
def test_a_minutes_peak_is_forgotten_after_128_minutes(every):
    state, _ = evaluated(lambda at: 500.0 if at < 300 else 0.0, seconds=135 * 60, every=every)
    assert not any(state.minute_peaks)
