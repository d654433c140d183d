"""Amounts in sentences have no exponents, however large they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.amounts import amount


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (60.15098, "60.15"),
        (0.3512, "0.3512"),
        (15_000.0, "15000"),
        (719_480_000.0, "719480000"),
        (1e-7, "0"),
        (0.0, "0"),
        (float("inf"), "inf"),
    ],
)
def test_four_digits_are_kept(value, text):
    assert amount(value) == text


@given(st.floats(-1e15, 1e15))
def test_no_amount_has_an_exponent(value):
    assert "e" not in amount(value)
    assert float(amount(value)) == pytest.approx(value, rel=1e-3, abs=1e-3)
