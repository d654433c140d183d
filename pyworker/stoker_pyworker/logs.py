"""Logs as JSON, one line per event, on stdout: what a marketplace collects as the instance's log."""

import contextlib
import json
import sys
from typing import Any

import structlog


def configure() -> None:
    """Send every event to stdout."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=_dump),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        logger_factory=lambda *_: _Lines(sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )


class _Lines(structlog.BytesLogger):
    """Writes lines, and never raises: a full disk or a reader that died must not fail what only wanted to tell of itself."""

    def msg(self, message: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _dump(event: Any, **_: Any) -> bytes:
    # ASCII only: what a request or the model wrote stands in it as escapes, wherever the log is shown.
    return json.dumps(event, default=repr).encode()
