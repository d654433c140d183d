"""Latency and fault rates of a seeded marketplace."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Latency of the market and its machines."""

    call_seconds: float = 0.2
    pull_seconds: float = 40.0
    start_seconds: float = 8.0
    stop_seconds: float = 3.0
    destroy_seconds: float = 1.0
    list_lag_seconds: float = 2.0
    """Age of lists and shows, seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketFaults:
    """Fault rates: shares of calls, or of machines."""

    limited: float = 0.0
    unavailable: float = 0.0
    timeout: float = 0.0
    """Calls that time out after 30 s without effect."""
    lost: float = 0.0
    """Calls that take effect, but whose answer is lost."""
    slow: float = 0.0
    late: float = 0.0
    """Creates that take effect up to a minute after the caller gave up."""
    refused: float = 0.0
    """Creates."""
    taken: float = 0.0
    """Offers that another customer rents, per minute."""
    never_loads: float = 0.0
    crash_loops: float = 0.0
    errors: float = 0.0
    """Machines whose worker reports an error, before or after it was ready."""
    mute: float = 0.0
    """Machines whose worker stops reporting, some for good."""
    outbid: float = 0.0
    """Machines that are stopped by a higher bid in some hour."""
    dies: float = 0.0
    """Machines that disappear."""
    offline: float = 0.0
    stays_stopped: float = 0.0
    """Machines whose GPU another customer rents as soon as they stop."""
    stop_ignored: float = 0.0
    touched: float = 0.0
    """Machines that an operator starts or stops by hand."""
    relabelled: float = 0.0
    """Machines whose label an operator edits in the marketplace's console."""
    list_empty: float = 0.0
    """Lists that are empty."""
    list_short: float = 0.0
    """Lists that lack some instances."""


CALM = MarketFaults()
