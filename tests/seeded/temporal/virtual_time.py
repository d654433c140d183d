"""Time and randomness of one run: an event loop in virtual time, and patched `time` and `secrets`.

Without input from outside, the same seed gives the same run, byte for byte.
"""

import asyncio
import random
import secrets
import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.serialization import load_pem_private_key

BEGINNING = 1_700_000_000.0
"""Unix time at which every run begins."""


class Stalled(RuntimeError):
    """Deadlock: every task waits, and no timer is due."""


class _Jump(selectors.SelectSelector):
    """A selector that advances the clock to the next due timer when the loop would wait."""

    loop: "JumpingLoop"

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stalled("no task is ready and no timer is set")
        self.loop.moment += max(timeout, 0.0)
        return []


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time. Work for a thread runs at once, because threads have real time."""

    def __init__(self) -> None:
        self.moment = 0.0
        jump = _Jump()
        jump.loop = self
        super().__init__(jump)

    def time(self) -> float:
        return self.moment

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - the future carries it, as a thread would
            future.set_exception(error)
        return future


@cache
def _loaded(pem: bytes, password: None) -> Any:
    """Checking a key takes most of an engine's start time."""
    return load_pem_private_key(pem, password)


@contextmanager
def sealed(seed: int) -> Iterator[JumpingLoop]:
    """A loop, with the process's clocks and secret randomness patched while it is open.

    A launch's signing key would be an RSA key, with a tenth of a second of CPU and its own randomness. It has its own
    tests; here it is a text that must not leak.
    """
    loop = JumpingLoop()
    chance = random.Random(f"secrets of {seed}")

    def clock() -> float:
        return BEGINNING + loop.moment

    def sealed_key(secret: bytes, launch_id: str) -> str:
        return f"sealedkey{launch_id}"

    patches = [
        mock.patch("engine.routing.ticket_issuer.load_pem_private_key", _loaded),
        mock.patch.object(time, "time", clock),
        mock.patch.object(time, "monotonic", loop.time),
        mock.patch.object(secrets, "randbits", chance.getrandbits),
        mock.patch.object(secrets, "token_hex", lambda n=16: chance.randbytes(n).hex()),
        mock.patch.object(secrets, "token_bytes", lambda n=16: chance.randbytes(n)),
        mock.patch("activities.instances.sealed_signing_key", sealed_key),
        mock.patch(
            "engine.temporal.signal_sender.TICK_SECONDS", 1.0
        ),  # urgent events are flushed; the others may wait a second
    ]
    for patch in patches:
        patch.start()
    asyncio.set_event_loop(loop)
    try:
        yield loop
    finally:
        for patch in reversed(patches):
            patch.stop()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()
        asyncio.set_event_loop(None)
