"""A role runs until it is told to stop."""

import asyncio
import signal
from collections.abc import Callable

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stop_event() -> asyncio.Event:
    """Set by SIGINT, SIGTERM or SIGHUP. Made before anything slow, so that a signal during the start is not lost."""
    stop = asyncio.Event()
    on_stop(stop.set)
    return stop


def on_stop(act: Callable[[], object]) -> None:
    """Call `act` at each signal to stop. A SIGHUP that `nohup` set to be ignored stays ignored."""
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue
        loop.add_signal_handler(number, act)
