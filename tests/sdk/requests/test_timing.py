"""The parts of an answer's latency, retry pauses and `Retry-After`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.requests.retry.backoff import RetryPolicy, retry_after
from stoker.requests.timing import read_server_timing, split_time


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("queue;dur=12.5, model;dur=340", {"queue": 0.0125, "model": 0.34}),
        ('cache;desc="hit", model;desc=x;dur=1', {"model": 0.001}),
        ("model;dur=", {}),
        ("model;dur=-1, queue;dur=nan, other;dur=inf", {}),
        ("", {}),
        (";;,,=;dur=;", {}),
    ],
)
def test_invalid_parts_of_a_server_timing_header_are_left_out(header, seconds):
    assert read_server_timing(header) == seconds


def test_parts_that_the_worker_does_not_measure_are_none():
    timing = split_time(total_s=3.0, waited_s=1.0, lost_s=0.5, server_timing="")
    assert (timing.queued_s, timing.model_s, timing.network_s) == (None, None, 1.5)
    assert str(timing) == "3.000 s (waited 1.000, lost 0.500, network 1.500)"


seconds = st.floats(0, 1e6)


@given(seconds, seconds, seconds, seconds, seconds)
def test_the_parts_are_never_negative_and_never_more_than_the_whole(waited, lost, rest, queue, model):
    total = waited + lost + rest
    timing = split_time(
        total_s=total,
        waited_s=waited,
        lost_s=lost,
        server_timing=f"queue;dur={queue * 1000}, model;dur={model * 1000}",
    )
    parts = [timing.waited_s, timing.lost_s, timing.queued_s or 0, timing.model_s or 0, timing.network_s]
    assert all(part >= 0 for part in parts)
    assert sum(parts) == pytest.approx(total)


@given(st.text(max_size=100))
def test_any_header_can_be_read(header):
    assert all(value >= 0 for value in read_server_timing(header).values())


@given(st.integers(0, 10_000))
def test_a_pause_is_bounded_on_both_sides(tries):
    policy = RetryPolicy()
    assert policy.pause_seconds_first / 2 <= policy.pause(tries) <= policy.pause_seconds_max


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        ("2", 2),
        ("0", 0),
        ("1.5", 1.5),
        ("3600", 30),
        ("-1", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("", None),
        (None, None),
        ("nan", None),
    ],
)
def test_retry_after_is_honoured_up_to_a_bound(header, pause):
    assert retry_after(header, seconds_max=30) == pause
