"""Named tunings: other temperaments of the same policy, for advice. A live endpoint always runs the default one."""

from dataclasses import replace

from policy.tuning import DEFAULT_TUNING, Tuning

TUNINGS: dict[str, Tuning] = {
    "default": DEFAULT_TUNING,
    "thrifty": replace(DEFAULT_TUNING, late_share_max=0.02, late_work_price=20.0),
    "generous": replace(
        DEFAULT_TUNING, late_share_max=0.001, late_work_price=1000.0, hot_hold_seconds_default=300.0
    ),
}
"""`thrifty`: a fiftieth of the work may wait too long, and no more than 20 s of a worker is paid for a second of it.
`generous`: a thousandth, and a thousand."""
