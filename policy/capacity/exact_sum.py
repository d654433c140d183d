"""Sums that can be kept up to date: what was added can be taken away again, and nothing of it is left as rounding."""

BILLION = 1e9

_MOST = 1e18
"""Nobody pays or does as much; what is beyond it must not break a sum."""


def billionths(value: float) -> int:
    """Dollars per hour, or load/s, in whole billionths. A sum of them does not depend on its order, and does not drift."""
    return round(min(max(value, -_MOST), _MOST) * BILLION)
