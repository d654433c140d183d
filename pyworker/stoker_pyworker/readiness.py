"""When the model can serve, and when it cannot any more: its log's lines, and a probe of its server."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from stoker_pyworker.config import LogActionConfig
from stoker_pyworker.http.client import ask
from stoker_pyworker.http.outgoing import OriginFault, Pool
from stoker_pyworker.log_file import LogFile

log = structlog.get_logger(room="readiness")

_LOADING_SECONDS = 0.1
_WATCHING_SECONDS = 5.0
_DOUBT_SECONDS = 0.5
_PROBE_SECONDS_MAX = 10.0
_PROBES_MAX = 2
_SLOW_PROBES_MAX = 3
"""A model server that computes in its event loop answers no probe meanwhile: slow is not broken, three times slow is."""


class LogWatch:
    """Reads the model's log for as long as the worker runs."""

    def __init__(
        self,
        path: Path,
        actions: LogActionConfig,
        *,
        loaded: Callable[[], None],
        failed: Callable[[str], None],
        unreadable: Callable[[str], None],
    ) -> None:
        self._path = path
        self._actions = actions
        self._loaded = loaded
        self._failed = failed
        self._unreadable = unreadable

    async def run(self) -> None:
        """Tell what each line means."""
        async for line in LogFile(self._path, told=self._unreadable).lines():
            if any(text in line for text in self._actions.on_error):
                self._failed(f"the model's log says: {line[:300]}")
            elif any(text in line for text in self._actions.on_load):
                self._loaded()
            elif any(text in line for text in self._actions.on_info):
                log.info("model_log", line=line[:1000])


class Probe:
    """Asks the model server whether it is well: its health path, or else whether it takes connections at all."""

    def __init__(self, pool: Pool, path: str) -> None:
        # Behind requests that hold every connection, a probe would find a healthy model server silent.
        self._pool = pool.apart(_PROBES_MAX)
        self._path = path
        self._doubt = asyncio.Event()

    def doubt(self) -> None:
        """A request failed: look now."""
        self._doubt.set()

    async def until_well(self) -> None:
        """Wait until the model server is well."""
        while await self.fault() is not None:  # noqa: ASYNC110 - the event is another process's
            await asyncio.sleep(_LOADING_SECONDS)

    async def watch(self, well: Callable[[], None], failed: Callable[[str], None]) -> None:
        """Tell of every look, for as long as the worker runs."""
        slow = 0
        while True:
            try:
                fault = await self.fault()
            except TimeoutError:
                slow += 1
                fault = None
                if slow >= _SLOW_PROBES_MAX:
                    failed(f"the model server answered no health probe for {slow * _PROBE_SECONDS_MAX:.0f} s")
            else:
                slow = 0
                if fault is None:
                    well()
                else:
                    failed(fault)
            self._doubt.clear()
            try:
                async with asyncio.timeout(_WATCHING_SECONDS if fault is None else _DOUBT_SECONDS):
                    await self._doubt.wait()
            except TimeoutError:
                continue
            # Several requests may fail in one moment: one look is enough for all.
            await asyncio.sleep(_LOADING_SECONDS)

    async def fault(self) -> str | None:
        """What is wrong with the model server, or None.

        Raises:
            TimeoutError: it took the connection and gave no answer.
        """
        if not self._path:
            return await self._connects()
        try:
            answer = await ask(self._pool, "GET", self._path, seconds_max=_PROBE_SECONDS_MAX)
        except OriginFault as fault:
            return str(fault)
        if answer.status == 200:
            return None
        return f"the model server answers {self._path} with status {answer.status}"

    async def _connects(self) -> str | None:
        try:
            _, writer = await asyncio.open_connection(self._pool.host, self._pool.port)
        except OSError as fault:
            return f"{self._pool.host}:{self._pool.port} takes no connection: {fault}"
        writer.close()
        return None
