"""Named variants of the tuning for what-if analysis. A live endpoint always uses the default."""

from dataclasses import replace

from policy.tuning import DEFAULT_TUNING, Tuning

TUNINGS: dict[str, Tuning] = {
    "default": DEFAULT_TUNING,
    "thrifty": replace(DEFAULT_TUNING, late_share_max=0.02, late_work_price=20.0),
    "generous": replace(
        DEFAULT_TUNING, late_share_max=0.001, late_work_price=1000.0, hot_hold_seconds_default=300.0
    ),
}
"""`thrifty` accepts 2 % of late work and pays at most 20 worker-seconds to avoid one second of it.
`generous` accepts 0.1 % and pays up to 1000 worker-seconds."""
