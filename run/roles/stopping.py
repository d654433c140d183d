"""Stop signals of a process."""

import asyncio
import signal
from collections.abc import Callable

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stop_event() -> asyncio.Event:
    """An event that SIGINT, SIGTERM or SIGHUP sets. Call it first, so that no signal during the start is lost."""
    stop = asyncio.Event()
    on_stop(stop.set)
    return stop


def on_stop(act: Callable[[], object]) -> None:
    """Call `act` at each stop signal. If `nohup` ignores SIGHUP, it remains ignored."""
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue
        loop.add_signal_handler(number, act)
