"""One endpoint at which a loop over all of them fails: it is said, and the others have their turn."""

import time
from collections.abc import Callable

import structlog

log = structlog.get_logger("engine.temporal.log_throttle")

SAID_AGAIN_SECONDS = 60.0
"""A loop comes by several times a second."""


class LogThrottle:
    """Says of one loop which endpoints it could not look after."""

    def __init__(self, loop: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._now = now
        self._said: dict[str, float] = {}
        """When each was last spoken of."""

    def __repr__(self) -> str:
        return f"<LogThrottle by {self._loop}: {', '.join(self._said) or 'nobody'}>"

    def say(self, endpoint: str, fault: Exception) -> None:
        """Log it, once a minute for each endpoint."""
        now = self._now()
        self._said = {name: at for name, at in self._said.items() if now - at < SAID_AGAIN_SECONDS}
        if endpoint not in self._said:
            self._said[endpoint] = now
            error = f"{type(fault).__name__}: {fault}"[:300]
            log.error("endpoint_skipped", loop=self._loop, endpoint=endpoint, error=error)
