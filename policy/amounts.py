"""Amounts of load and perf in sentences."""

import math


def amount(value: float) -> str:
    """About four significant digits and never an exponent: `60.15`, `0.35`, `719480000`."""
    if not math.isfinite(value):
        return str(value)
    text = f"{value:.4g}"
    if "e" not in text:
        return text
    return f"{value:.0f}"
