"""The time by which tickets expire: this machine's clock is its host's, and one that is ahead would find every ticket expired."""

import time
from email.utils import parsedate_to_datetime

import structlog

log = structlog.get_logger(room="clock")

_IN_STEP_SECONDS = 5.0
"""So far may the clocks be apart before ours is held for wrong: those that are kept in step differ by much less, and a `Date`
says whole seconds."""
_ANSWER_SECONDS_MAX = 5.0
"""Of an answer that took longer nobody knows when its `Date` was written."""
_HELD_SECONDS = 600.0
"""Several engines may answer at one address: that one of them shows a later time than another did is no reason to refuse the
other's tickets."""


class TicketClock:
    """Our clock, put back to the engines' where it is ahead of them, as their answers to reports tell.

    Of several engines the one that is furthest behind counts. Where ours is behind it is left as it is: a ticket that nobody
    has used then opens some time longer, and still only once.
    """

    def __init__(self) -> None:
        self.ahead = 0.0
        """How far ours is ahead of the engines', s; 0: not at all, as far as is known."""
        self._confirmed_at = 0.0

    def __repr__(self) -> str:
        return f"<TicketClock, ours is {self.ahead:.1f} s ahead>"

    def now(self) -> float:
        """Unix time, s."""
        return time.time() - self.ahead

    def hear(self, date: bytes | None, *, engine: str, asked_at: float, heard_at: float) -> None:
        """The `Date` of an answer of `engine`, asked for and heard at these Unix times of our clock.

        A `Date` that is missing or no date says nothing.
        """
        if date is None or not 0 <= heard_at - asked_at <= _ANSWER_SECONDS_MAX:
            return
        try:
            # it was cut off to whole seconds
            said = parsedate_to_datetime(date.decode("ascii")).timestamp() + 0.5
        except (ValueError, OverflowError):
            return
        ahead = (asked_at + heard_at) / 2 - said
        if ahead <= _IN_STEP_SECONDS:
            ahead = 0.0
        if abs(ahead - self.ahead) <= _IN_STEP_SECONDS:
            self._confirmed_at = heard_at
        elif ahead > self.ahead or abs(heard_at - self._confirmed_at) > _HELD_SECONDS:
            self.ahead, self._confirmed_at = ahead, heard_at
            if ahead:
                log.warning("clock_ahead", engine=engine, seconds=round(ahead, 1))
            else:
                log.info("clock_right", engine=engine)
