"""Rate-limited log for endpoints whose iteration of a loop failed."""

import time
from collections.abc import Callable

import structlog

log = structlog.get_logger("engine.temporal.log_throttle")

REPEAT_SECONDS = 60.0
"""An endpoint is logged at most once in this time; the loops run several times a second."""


class LogThrottle:
    """Logs the failed endpoints of one loop."""

    def __init__(self, loop: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._now = now
        self._logged_at: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<LogThrottle of {self._loop}: {', '.join(self._logged_at) or 'no endpoints'}>"

    def log(self, endpoint: str, fault: Exception) -> None:
        """Log the fault unless the endpoint was logged within `REPEAT_SECONDS`."""
        now = self._now()
        self._logged_at = {name: at for name, at in self._logged_at.items() if now - at < REPEAT_SECONDS}
        if endpoint not in self._logged_at:
            self._logged_at[endpoint] = now
            error = f"{type(fault).__name__}: {fault}"[:300]
            log.error("endpoint_skipped", loop=self._loop, endpoint=endpoint, error=error)
