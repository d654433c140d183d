"""The clock for ticket expiry, corrected for clock skew between worker and engine."""

import time
from email.utils import parsedate_to_datetime

import structlog

log = structlog.get_logger(component="clock")

_SKEW_SECONDS_MIN = 5.0
"""Smaller differences are ignored. Synchronised clocks differ by less, and a `Date` has a resolution of 1 s."""
_RESPONSE_SECONDS_MAX = 5.0
"""The `Date` of a slower response is ignored: its age is unknown."""
_CONFIRMED_SECONDS = 600.0
"""A skew stays in use this long after an engine last confirmed it. Several engines may answer at one address."""


class TicketClock:
    """The local clock, set back if it is ahead of the engine's clock, as the `Date` of report responses shows.

    With several engines the slowest clock counts. A local clock that is behind is not corrected: an unused ticket
    then stays valid longer, but still works only once.
    """

    def __init__(self) -> None:
        self.ahead_seconds = 0.0
        """How far the local clock is ahead of the engine's; 0: not at all, or unknown."""
        self._confirmed_at = 0.0

    def __repr__(self) -> str:
        return f"<TicketClock {self.ahead_seconds:.1f} s ahead>"

    def now(self) -> float:
        """Unix time, s."""
        return time.time() - self.ahead_seconds

    def observe_date(self, date: bytes | None, *, engine: str, sent_at: float, received_at: float) -> None:
        """Evaluate the `Date` of a response of `engine`; times are Unix times of the local clock.

        A missing or invalid `Date` is ignored.
        """
        if date is None or not 0 <= received_at - sent_at <= _RESPONSE_SECONDS_MAX:
            return
        try:
            # The fraction of a second is cut off: add its mean.
            engine_time = parsedate_to_datetime(date.decode("ascii")).timestamp() + 0.5
        except (ValueError, OverflowError):
            return
        ahead = (sent_at + received_at) / 2 - engine_time
        if ahead <= _SKEW_SECONDS_MIN:
            ahead = 0.0
        if abs(ahead - self.ahead_seconds) <= _SKEW_SECONDS_MIN:
            self._confirmed_at = received_at
        elif ahead > self.ahead_seconds or abs(received_at - self._confirmed_at) > _CONFIRMED_SECONDS:
            self.ahead_seconds, self._confirmed_at = ahead, received_at
            if ahead:
                log.warning("clock_ahead", engine=engine, seconds=round(ahead, 1))
            else:
                log.info("clock_synchronised", engine=engine)
