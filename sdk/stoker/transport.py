"""Connections: kept alive, bounded, and cheap when a thousand requests are under way."""

from __future__ import annotations

import asyncio
import importlib.metadata
import socket
import ssl
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx

LANE_SIZE = 32
"""Connections per httpx client. httpx looks at every connection of its pool for every request, several times over, so
one pool of a thousand connections spends its time looking; 32 pools of 32 do not."""

CONNECT_SECONDS_MAX = 10.0


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

    __slots__ = ("_lane", "_pool", "response")

    def __init__(self, response: httpx.Response, lane: _Lane, pool: Pool) -> None:
        self.response = response
        self._lane: _Lane | None = lane
        self._pool = pool

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        try:
            await self.response.aclose()
        finally:
            self._pool._leave(lane)


class _Lane:
    __slots__ = ("busy", "client")

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.busy = 0


class Pool:
    """Up to `connections_max` requests at once; the others wait their turn in order."""

    def __init__(
        self,
        *,
        verify: ssl.SSLContext | bool = True,
        connections_max: int | None = None,
        keepalive_seconds: float = 10.0,
    ) -> None:
        self._limit = connections_max or connections_allowed()
        self._turn = asyncio.Semaphore(self._limit)
        self._lanes: list[_Lane] = []
        self._verify = verify
        self._keepalive_seconds = keepalive_seconds
        self._headers = {"User-Agent": f"stoker/{version()}", "Accept-Encoding": "identity"}
        self._closed = False

    def _lane(self) -> _Lane:
        """The first lane with room: filling lanes in order reuses their open connections."""
        for lane in self._lanes:
            if lane.busy < LANE_SIZE:
                return lane
        if isinstance(
            self._verify, bool
        ):  # reading the CA bundle takes tens of ms: once per pool, not per lane
            self._verify = httpx.create_ssl_context(verify=self._verify)
        limits = httpx.Limits(
            max_connections=LANE_SIZE,
            max_keepalive_connections=LANE_SIZE,
            keepalive_expiry=self._keepalive_seconds,
        )
        transport = httpx.AsyncHTTPTransport(
            verify=self._verify, limits=limits, socket_options=_socket_options(), trust_env=True
        )
        lane = _Lane(httpx.AsyncClient(transport=transport, headers=self._headers, follow_redirects=False))
        self._lanes.append(lane)
        return lane

    def _leave(self, lane: _Lane) -> None:
        lane.busy -= 1
        self._turn.release()

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
        """Send a request and wait for the head of its answer.

        Raises:
            httpx.TransportError: the connection failed, or nothing came for `read_seconds_max`.
        """
        if self._closed:
            raise RuntimeError("the client is closed; use it inside its `async with`")
        timeout = httpx.Timeout(read_seconds_max, connect=CONNECT_SECONDS_MAX, pool=None)
        await self._turn.acquire()
        lane = self._lane()
        lane.busy += 1
        try:
            request = lane.client.build_request(
                method, url, content=content, headers=headers, params=params, timeout=timeout
            )
            return Reply(await lane.client.send(request, stream=True), lane, self)
        except BaseException:
            self._leave(lane)
            raise

    async def fetch(self, method: str, url: str, **options: Any) -> httpx.Response:
        """Send a request and read its whole answer."""
        async with await self.open(method, url, **options) as reply:
            await reply.response.aread()
            return reply.response

    async def aclose(self) -> None:
        """Close every connection."""
        self._closed = True
        lanes, self._lanes = self._lanes, []
        for lane in lanes:
            await lane.client.aclose()
