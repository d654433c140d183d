"""A role runs until it is told to stop."""

import asyncio
import signal


def stop_event() -> asyncio.Event:
    """Set by SIGINT or SIGTERM. Made before anything slow, so that a signal during the start is not lost."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop
