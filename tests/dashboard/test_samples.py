"""Rates and percentiles from the engine's counters."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.samples import Differ, Sample, gpu_dollars, percentile
from engine.console.overview import BUCKET_SECONDS, histogram_counts
from engine.request_stats import Histogram

ZEROS = [0] * (len(BUCKET_SECONDS) + 1)


def figures(
    *, load: float = 0, requests: int = 0, waited: list[float] | None = None, **more: Any
) -> dict[str, Any]:
    histogram = Histogram()
    for seconds in waited or []:
        histogram.observe(seconds)
    return {
        "arrived_load": load,
        "arrived_requests": requests,
        "waited": histogram_counts(histogram),
        "took": {"counts": ZEROS},
        "stages": {"hot": 2, "booting": 1, "cold": 3, "failed": 1},
        "capacity": {"hot": 20.0, "booting": 10.0, "cold": 30.0},
        "dollars_per_hour": {"hot": 0.4, "booting": 0.2},
        "queue_requests": 5,
        "queue_oldest_s": 1.5,
    } | more


def test_load_is_the_growth_of_the_counter_over_ten_seconds() -> None:
    differ = Differ()
    for second in range(0, 121, 2):  # 50 load/s, then 200 load/s in the last ten seconds
        load = 50.0 * second + 150.0 * max(0, second - 110)
        sample = differ.sample(figures(load=load), at=1000.0 + second, engine_id="e", bounds=BUCKET_SECONDS)
    assert sample.load == pytest.approx(200.0)


def test_a_first_burst_is_spread_over_ten_seconds() -> None:
    differ = Differ()
    differ.sample(figures(), at=1000.0, engine_id="e", bounds=BUCKET_SECONDS)
    sample = differ.sample(figures(load=100.0), at=1001.0, engine_id="e", bounds=BUCKET_SECONDS)
    assert sample.load == 10.0


def test_counters_of_a_restarted_engine_do_not_give_a_negative_load() -> None:
    differ = Differ()
    differ.sample(figures(load=1e6), at=1000.0, engine_id="old", bounds=BUCKET_SECONDS)
    sample = differ.sample(figures(load=10.0), at=1002.0, engine_id="new", bounds=BUCKET_SECONDS)
    assert sample.load == 0.0


def test_workers_are_counted_by_stage() -> None:
    sample = Differ().sample(figures(), at=1.0, engine_id="e", bounds=BUCKET_SECONDS)
    assert (sample.hot, sample.booting, sample.cold, sample.failed) == (2, 1, 3, 1)


def test_percentiles_are_of_the_last_minute_only() -> None:
    differ = Differ()
    old = [100.0] * 50
    differ.sample(figures(waited=[]), at=0.0, engine_id="e", bounds=BUCKET_SECONDS)
    differ.sample(figures(waited=old), at=10.0, engine_id="e", bounds=BUCKET_SECONDS)
    sample = differ.sample(figures(waited=old + [0.2] * 50), at=80.0, engine_id="e", bounds=BUCKET_SECONDS)
    assert 0.1 <= sample.wait_p99 <= 0.25


def test_a_percentile_of_waits_of_eleven_seconds_is_about_eleven_seconds() -> None:
    differ = Differ()
    differ.sample(figures(waited=[]), at=0.0, engine_id="e", bounds=BUCKET_SECONDS)
    sample = differ.sample(figures(waited=[11.0] * 100), at=2.0, engine_id="e", bounds=BUCKET_SECONDS)
    # its bucket is from 2^(13/4) = 9.51 s to 2^(14/4) = 11.31 s
    assert sample.wait_p50 == pytest.approx(10.41, abs=0.01)
    assert sample.wait_p99 == pytest.approx(11.30, abs=0.01)


@given(st.lists(st.floats(0, 600), min_size=1, max_size=100), st.floats(0.01, 1.0))
def test_a_percentile_lies_in_the_bucket_of_the_exact_one(values: list[float], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    counts = histogram_counts(histogram)["counts"]
    assert sum(counts) == len(values)
    exact = sorted(values)[max(0, min(len(values) - 1, -(-int(share * len(values) * 1e9) // 10**9) - 1))]
    estimate = percentile(counts, BUCKET_SECONDS, share)
    place = next(place for place, bound in enumerate(BUCKET_SECONDS) if bound >= exact)
    lower = BUCKET_SECONDS[place - 1] if place else 0.0
    assert lower - 1e-9 <= estimate <= BUCKET_SECONDS[place] + 1e-9


def test_no_request_has_no_percentile() -> None:
    assert percentile(ZEROS, BUCKET_SECONDS, 0.99) == 0.0


def test_gpu_dollars_are_used_in_proportion_to_the_load_and_else_wasted() -> None:
    half = Sample(at=0.0, load=5.0, capacity_hot=10.0, dollars_hot=2.0, dollars_booting=1.0)
    over = Sample(at=1800.0, load=50.0, capacity_hot=10.0, dollars_hot=2.0)
    end = Sample(at=3600.0)
    found = gpu_dollars([half, over, end], gap_seconds=1800.0)
    # half an hour at $1 used, $1 unused and $1 booting an hour, half an hour at $2 used
    assert (found.used, found.unused, found.booting, found.wasted) == (1.5, 0.5, 0.5, 1.0)
    assert found.seconds == 3600.0


def test_gpu_dollars_of_a_time_without_samples_are_not_counted() -> None:
    busy = [Sample(at=at, dollars_hot=1.0) for at in (0.0, 36.0, 3600.0)]
    found = gpu_dollars(busy, gap_seconds=150.0)
    assert (found.seconds, found.unused) == (36.0, pytest.approx(0.01))
