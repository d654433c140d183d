"""Named tunings: other temperaments of the same policy, for advice. A live endpoint always runs the default one."""

from dataclasses import replace

from policy.tuning import DEFAULT_TUNING, Tuning

TUNINGS: dict[str, Tuning] = {
    "default": DEFAULT_TUNING,
    "thrifty": replace(DEFAULT_TUNING, spare_deviations=0.0, burst_deviations=0.0),
    "generous": replace(
        DEFAULT_TUNING,
        spare_deviations=DEFAULT_TUNING.spare_deviations + 1.0,
        burst_deviations=DEFAULT_TUNING.burst_deviations * 2,
        hot_hold_starts=DEFAULT_TUNING.hot_hold_starts * 2,
    ),
}
"""`thrifty`: no spare for chance beyond `target_util`. `generous`: a standard deviation more, and hot capacity is held
twice as long."""
