"""How quick a seeded marketplace is, and how often what goes wrong."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How quick the market and its machines are."""

    call_seconds: float = 0.2
    pull_seconds: float = 40.0
    start_seconds: float = 8.0
    stop_seconds: float = 3.0
    destroy_seconds: float = 1.0
    list_lag_seconds: float = 2.0
    """How far lists and shows are behind the truth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Troubles:
    """How often what goes wrong: shares of calls, or of machines."""

    limited: float = 0.0
    unavailable: float = 0.0
    timeout: float = 0.0
    """30 s, and nothing was done."""
    lost: float = 0.0
    """Done, and the answer is lost."""
    slow: float = 0.0
    late: float = 0.0
    """Creates that are carried out up to a minute after their caller gave up."""
    refused: float = 0.0
    """Creates."""
    taken: float = 0.0
    """Offers that somebody else rents, per minute."""
    never_loads: float = 0.0
    crash_loops: float = 0.0
    errors: float = 0.0
    """Machines whose worker reports an error, before or after it was ready."""
    mute: float = 0.0
    """Machines whose worker stops reporting, some for good."""
    outbid: float = 0.0
    """Machines that are stopped by a higher bid in some hour."""
    dies: float = 0.0
    """Machines that are gone without a word."""
    offline: float = 0.0
    stays_stopped: float = 0.0
    """Machines whose GPU is rented to somebody else as soon as they stop."""
    stop_ignored: float = 0.0
    touched: float = 0.0
    """Machines that somebody starts or stops by hand."""
    relabelled: float = 0.0
    """Machines whose label somebody edits in the marketplace's console."""
    list_empty: float = 0.0
    """Lists that are answered without any instance."""
    list_short: float = 0.0
    """Lists that are answered without some of the instances."""


CALM = Troubles()
