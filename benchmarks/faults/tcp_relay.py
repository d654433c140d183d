"""A wire that can be cut: a TCP relay between the workers and the engine."""

import asyncio
import contextlib
from typing import Literal

Cut = Literal["", "refused", "silent"]


class Wire:
    """Relays every connection to the engine, until it is cut.

    `refused`: open connections end, new ones are reset. `silent`: a dead route, which drops every packet and answers
    none.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._cut: Cut = ""
        self._whole = asyncio.Event()
        self._whole.set()
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self, how: Cut) -> None:
        """Cuts the wire, or repairs it (empty text); connections that were silent end then, as after a rerouting."""
        was, self._cut = self._cut, how
        if how == "silent":
            self._whole.clear()
            return
        self._whole.set()
        if how == "refused" or was == "silent":
            for relay in list(self._relays):
                relay.cancel()

    async def close(self) -> None:
        """End every connection."""
        self._whole.set()
        if self._server is not None:
            self._server.close()
        for relay in list(self._relays):
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        try:
            if self._cut == "refused":
                return
            await self._relay(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._relays.discard(task)
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._whole.wait()
        there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            pumps = {
                asyncio.create_task(self._pump(reader, back)),
                asyncio.create_task(self._pump(there, writer)),
            }
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
        finally:
            back.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if self._cut == "silent":
                    continue  # in transit when the route died
                sink.write(data)
                await sink.drain()
