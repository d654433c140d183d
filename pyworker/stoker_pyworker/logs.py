"""Logs as JSON, one line per event, on stdout: what a marketplace collects as the instance's log."""

import sys
from typing import Any

import msgspec
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
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )


def _dump(event: Any, **_: Any) -> bytes:
    return msgspec.json.encode(event, enc_hook=repr)
