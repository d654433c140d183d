"""Logs as JSON lines on stdout, which a marketplace collects as the log of the instance."""

import contextlib
import json
import sys
from typing import Any

import structlog


def configure() -> None:
    """Write every event to stdout."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=_dump),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        logger_factory=lambda *_: _SafeLogger(sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )


class _SafeLogger(structlog.BytesLogger):
    """Writes lines and never raises: a full disk or a closed pipe must not fail the code that logs."""

    def msg(self, message: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _dump(event: Any, **_: Any) -> bytes:
    # ASCII only: control characters from requests or the model appear as escapes.
    return json.dumps(event, default=repr).encode()
