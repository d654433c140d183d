"""Connections: kept alive, bounded, and cheap when a thousand requests are under way."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

CONNECT_SECONDS_MAX = 10.0
LANE_SECONDS_MAX = 1.0
"""For a connection that only this request uses: it is there at once, or taken for ever."""


def version() -> str:
    """The installed version of this package."""
    try:
        return importlib.metadata.version("stoker")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "0"


def connections_allowed() -> int:
    """How many sockets of one pool this process can afford: two pools, and the program wants files too."""
    try:
        import resource  # noqa: PLC0415 - not on every platform
    except ImportError:
        return 400
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1000
    return max(16, min(1000, (soft - 100) // 2))


def _socket_options() -> list[tuple[int, int, int]]:
    """Keep-alive probes: a host that vanished without a word is noticed after a minute, not at the timeout."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    if sys.platform == "linux":
        options += [
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),
        ]
    return options


class Reply:
    """An answer whose head has arrived. Close it: its connection is one of a bounded number."""

    __slots__ = ("_broken", "_lane", "_pool", "response")

    def __init__(self, response: httpx.Response, lane: _Lane, pool: Pool) -> None:
        self.response = response
        self._lane: _Lane | None = lane
        self._pool = pool
        self._broken = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._broken = self._broken or fault is not None
        await self.aclose()

    def keep(self) -> Reply:
        """The same answer for somebody who will close it; this one lets go of it."""
        lane, self._lane = self._lane, None
        if lane is None:
            raise RuntimeError("the reply is closed")
        return Reply(self.response, lane, self._pool)

    async def aclose(self) -> None:
        """Give the connection back; closing twice does nothing."""
        lane, self._lane = self._lane, None
        if lane is None:
            return
        ended = (
            self.response.is_closed
        )  # by its own end; whoever leaves earlier leaves a connection in the middle of an answer
        try:
            await self.response.aclose()
        except BaseException:
            ended = False
            raise
        finally:
            if ended:
                self._pool._leave(lane)
            else:
                await self._pool._discard(lane)


class _Lane:
    """One connection to one origin, used by one request at a time."""

    __slots__ = ("idle_since", "origin", "transport")

    def __init__(self, origin: str, transport: httpx.AsyncHTTPTransport) -> None:
        self.origin = origin
        self.transport = transport
        self.idle_since = 0.0


class Pool:
    """Up to `connections_max` requests at once; the others wait their turn in order.

    Each connection is an httpx transport of its own. httpx looks at every connection of a transport for every request,
    several times over: a thousand connections in one transport spend their time being looked at.
    """

    def __init__(
        self,
        *,
        verify: ssl.SSLContext | bool = True,
        connections_max: int | None = None,
        keepalive_seconds: float = 10.0,
    ) -> None:
        self._limit = connections_max or connections_allowed()
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop that the connections belong to."""
        self._process = os.getpid()
        self._turn = asyncio.Semaphore(self._limit)
        self._verify = verify
        self._keepalive_seconds = keepalive_seconds
        self._headers = {"User-Agent": f"stoker/{version()}", "Accept-Encoding": "identity"}
        self._options = _socket_options()
        self._idle: dict[str, list[_Lane]] = {}
        """By origin, the one used last at the end."""
        self._busy: set[_Lane] = set()
        self._idle_count = 0
        self._swept_at = 0.0
        self._closed = False

    async def open(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        read_seconds_max: float | None = None,
    ) -> Reply:
        """Send a request and wait for the head of its answer. Redirects are not followed.

        Raises:
            httpx.TransportError: the connection failed, or nothing came for `read_seconds_max`.
            httpx.InvalidURL: the address is none.
            RuntimeError: the client is closed, or belongs to another event loop.
        """
        if self._closed:
            raise RuntimeError("the client is closed; use it inside its `async with`")
        self._settle()
        timeout = {
            "connect": CONNECT_SECONDS_MAX,
            "read": read_seconds_max,
            "write": None,
            "pool": LANE_SECONDS_MAX,
        }
        request = httpx.Request(
            method,
            url,
            params=params,
            headers={**self._headers, **(headers or {})},
            content=content,
            extensions={"timeout": timeout},
        )
        origin = f"{request.url.scheme}://{request.url.netloc.decode('ascii')}"
        await self._turn.acquire()
        try:
            lane = await self._take(origin)
        except BaseException:
            self._turn.release()
            raise
        try:
            try:
                response = await lane.transport.handle_async_request(request)
            except httpx.PoolTimeout:  # nothing was sent yet
                lane = await self._replace(lane)
                response = await lane.transport.handle_async_request(request)
        except BaseException:
            await self._discard(lane)
            raise
        response.request = request
        return Reply(response, lane, self)

    async def fetch(self, method: str, url: str, **options: Any) -> httpx.Response:
        """Send a request and read its whole answer."""
        async with await self.open(method, url, **options) as reply:
            await reply.response.aread()
            return reply.response

    async def aclose(self) -> None:
        """Close every connection."""
        self._settle()
        self._closed = True
        lanes = [lane for idle in self._idle.values() for lane in idle] + list(self._busy)
        self._idle.clear()
        self._idle_count = 0
        for lane in lanes:
            await lane.transport.aclose()

    @property
    def connections(self) -> int:
        """Open now."""
        return self._idle_count + len(self._busy)

    def _settle(self) -> None:
        """Belong to the running event loop. Connections of a loop that has ended, or of the parent process, are dropped.

        Raises:
            RuntimeError: another event loop uses the client.
        """
        loop, process = asyncio.get_running_loop(), os.getpid()
        if self._loop is loop and self._process == process:
            return
        if self._loop is not None and self._process == process and self._loop.is_running():
            raise RuntimeError(
                "this client belongs to another event loop, which still runs; make one stoker.Serverless per event loop, "
                "or share a stoker.SyncServerless between threads"
            )
        self._loop, self._process = loop, process
        self._turn = asyncio.Semaphore(self._limit)
        self._idle.clear()
        self._busy.clear()
        self._idle_count = 0

    async def _take(self, origin: str) -> _Lane:
        """An idle connection to this origin, or a new one."""
        now = time.monotonic()
        if now - self._swept_at >= self._keepalive_seconds:
            self._swept_at = now
            await self._close_idle(lambda lane: now - lane.idle_since >= self._keepalive_seconds)
        idle = self._idle.get(origin)
        if idle:
            lane = idle.pop()
            self._idle_count -= 1
        else:
            if self.connections >= self._limit:
                await self._close_idle(lambda lane: lane.origin != origin)
            lane = _Lane(origin, self._transport())
        self._busy.add(lane)
        return lane

    async def _close_idle(self, unwanted: Callable[[_Lane], bool]) -> None:
        """Close idle connections: those of workers that are gone are never asked for again."""
        closing = []
        for origin, idle in list(self._idle.items()):
            kept = [lane for lane in idle if not unwanted(lane)]
            closing += [lane for lane in idle if unwanted(lane)]
            if kept:
                self._idle[origin] = kept
            else:
                del self._idle[origin]
        self._idle_count -= len(closing)
        for lane in closing:
            await lane.transport.aclose()

    def _transport(self) -> httpx.AsyncHTTPTransport:
        if isinstance(self._verify, bool):  # reading the CA bundle takes tens of ms: once per pool
            self._verify = httpx.create_ssl_context(verify=self._verify)
        one = httpx.Limits(
            max_connections=1, max_keepalive_connections=1, keepalive_expiry=self._keepalive_seconds
        )
        return httpx.AsyncHTTPTransport(verify=self._verify, limits=one, socket_options=self._options)

    async def _discard(self, lane: _Lane) -> None:
        """Not to be used again: a request that is cancelled at the wrong moment leaves httpcore's one connection taken for
        ever, and the next request on it, somebody else's, would wait until its own timeout."""
        if lane not in self._busy:  # of an event loop that has ended
            return
        self._busy.discard(lane)
        self._turn.release()
        await lane.transport.aclose()

    async def _replace(self, taken: _Lane) -> _Lane:
        """A new one in its place: that one looked free, and its connection is not."""
        await taken.transport.aclose()
        self._busy.discard(taken)
        lane = _Lane(taken.origin, self._transport())
        self._busy.add(lane)
        return lane

    def _leave(self, lane: _Lane) -> None:
        if lane not in self._busy:  # of an event loop that has ended
            return
        self._busy.discard(lane)
        self._turn.release()
        if not self._closed:
            lane.idle_since = time.monotonic()
            self._idle.setdefault(lane.origin, []).append(lane)
            self._idle_count += 1
