"""Exact sums of amounts: integers, so that a sum is independent of order and removals leave no rounding error."""

BILLION = 1e9

_MAGNITUDE_MAX = 1e18


def billionths(value: float) -> int:
    """Dollars per hour, or load/s, in whole billionths. Values beyond ±1e18 are clipped."""
    return round(min(max(value, -_MAGNITUDE_MAX), _MAGNITUDE_MAX) * BILLION)
