"""HTTP connections: kept alive, bounded in number, and cheap with a thousand requests in flight."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import httpx

from stoker.proxies import ProxySettings
from stoker.trust import Trust

CONNECT_SECONDS_MAX = 10.0
CONNECTION_WAIT_SECONDS_MAX = 1.0
"""For httpcore's pool of one connection. The connection is free at once, or a cancelled request has left it locked."""


def version() -> str:
    """The installed version of this package."""
    try:
        return importlib.metadata.version("stoker")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "0"


def connections_allowed() -> int:
    """Sockets per pool: half of the process's file limit, because a client has two pools, and the program has files."""
    try:
        import resource  # noqa: PLC0415 - not on every platform
    except ImportError:
        return 400
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1000
    return max(16, min(1000, (soft - 100) // 2))


def _socket_options() -> list[tuple[int, int, int]]:
    """TCP keep-alive probes, which detect a vanished host after a minute instead of at the request's timeout."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    if sys.platform == "linux":
        options += [
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),
        ]
    return options


@contextmanager
def _proxy_named(proxy: httpx.Proxy | None) -> Iterator[None]:
    """Name the proxy in errors of connections through it. Its URL holds no credentials; httpx keeps them apart."""
    try:
        yield
    except httpx.ProxyError as fault:
        remedy = (
            "set its credentials as http://user:password@… in the proxy variable, "
            if "407" in str(fault)
            else ""
        )
        where = "the proxy" if proxy is None else f"the proxy {proxy.url}"
        raise httpx.ProxyError(
            f"{where} refused to connect: {fault}; {remedy}or list the host in NO_PROXY"
        ) from None
    except (httpx.ConnectError, httpx.ConnectTimeout) as fault:
        if proxy is None:
            raise
        raise type(fault)(f"{fault or type(fault).__name__}, through the proxy {proxy.url}") from fault


class Reply:
    """A response whose head has arrived. It holds one connection of the pool until it is closed."""

    __slots__ = ("_connection", "_pool", "response")

    def __init__(self, response: httpx.Response, connection: _Connection, pool: ConnectionPool) -> None:
        self.response = response
        self._connection: _Connection | None = connection
        self._pool = pool

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def detach(self) -> Reply:
        """The same response in a new object, which must be closed instead of this one."""
        connection, self._connection = self._connection, None
        if connection is None:
            raise RuntimeError("the reply is closed")
        return Reply(self.response, connection, self._pool)

    async def aclose(self) -> None:
        """Give the connection back; closing twice does nothing."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        # httpx closes a response at the end of its body; before that the connection is in the middle of an answer
        reusable = self.response.is_closed
        try:
            await self.response.aclose()
        except BaseException:
            reusable = False
            raise
        finally:
            if reusable:
                self._pool._release(connection)
            else:
                await self._pool._discard(connection)


class _Connection:
    """One connection to one origin, used by one request at a time."""

    __slots__ = ("idle_since", "origin", "transport")

    def __init__(self, origin: str, transport: httpx.AsyncHTTPTransport) -> None:
        self.origin = origin
        self.transport = transport
        self.idle_since = 0.0


async def _send(connection: _Connection, request: httpx.Request) -> httpx.Response:
    response = await connection.transport.handle_async_request(request)
    if response.status_code == 407:  # only a proxy answers this
        raise httpx.ProxyError("407 Proxy Authentication Required")
    return response


class ConnectionPool:
    """At most `connections_max` requests at once; further requests queue in order.

    Each connection is an httpx transport of its own, because httpx scans all connections of a transport several times
    per request: with a thousand connections in one transport the scans take most of the CPU time.
    """

    def __init__(
        self,
        *,
        verify: ssl.SSLContext | bool | Trust = True,
        connections_max: int | None = None,
        keepalive_seconds: float = 10.0,
        proxies: ProxySettings | None = None,
    ) -> None:
        self._limit = connections_max or connections_allowed()
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop that the connections belong to."""
        self._process = os.getpid()
        self._free = asyncio.Semaphore(self._limit)
        self._verify = verify
        self._proxies = proxies or ProxySettings({})
        self._keepalive_seconds = keepalive_seconds
        self._headers = {"User-Agent": f"stoker/{version()}", "Accept-Encoding": "identity"}
        self._options = _socket_options()
        self._idle: dict[str, list[_Connection]] = {}
        """By origin; the most recently used connection is the last."""
        self._busy: set[_Connection] = set()
        self._idle_count = 0
        self._expired_checked_at = 0.0
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
        """Send a request and wait for the head of its response. Redirects are not followed.

        Raises:
            httpx.TransportError: the connection failed, or no data came within `read_seconds_max`.
            httpx.ProxyError: the proxy refused to connect; the request was not sent.
            httpx.InvalidURL: not a valid address.
            RuntimeError: the client is closed, or belongs to another event loop.
        """
        if self._closed:
            raise RuntimeError("the client is closed; use it inside its `async with`")
        self._bind_to_running_loop()
        timeout = {
            "connect": CONNECT_SECONDS_MAX,
            "read": read_seconds_max,
            "write": None,
            "pool": CONNECTION_WAIT_SECONDS_MAX,
        }
        request = httpx.Request(
            method,
            url,
            params=params,
            headers={**self._headers, **(headers or {})},
            content=content,
            extensions={"timeout": timeout},
        )
        await self._free.acquire()
        try:
            if isinstance(self._verify, Trust) and request.url.scheme == "https":
                await self._verify.load()
            connection = await self._acquire(request.url)
        except BaseException:
            self._free.release()
            raise
        try:
            with _proxy_named(self._proxies.proxy_for(request.url)):
                try:
                    response = await _send(connection, request)
                except httpx.PoolTimeout:  # the connection is locked, and nothing was sent yet
                    connection = await self._replace(connection, request.url)
                    response = await _send(connection, request)
        except BaseException:
            await self._discard(connection)
            raise
        response.request = request
        return Reply(response, connection, self)

    async def fetch(self, method: str, url: str, **options: Any) -> httpx.Response:
        """Send a request and read its whole response."""
        async with await self.open(method, url, **options) as reply:
            await reply.response.aread()
            return reply.response

    async def aclose(self) -> None:
        """Close every connection."""
        self._bind_to_running_loop()
        self._closed = True
        connections = [each for idle in self._idle.values() for each in idle] + list(self._busy)
        self._idle.clear()
        self._idle_count = 0
        for connection in connections:
            await connection.transport.aclose()

    @property
    def connections(self) -> int:
        """Connections open now."""
        return self._idle_count + len(self._busy)

    def _bind_to_running_loop(self) -> None:
        """Drop connections of an event loop that has ended, or of the parent process before a fork.

        Raises:
            RuntimeError: another running event loop uses the client.
        """
        loop, process = asyncio.get_running_loop(), os.getpid()
        if self._loop is loop and self._process == process:
            return
        if self._loop is not None and self._process == process and self._loop.is_running():
            raise RuntimeError(
                "this client belongs to another event loop, which still runs; "
                "make one stoker.Serverless per event loop, or share a stoker.SyncServerless between threads"
            )
        self._loop, self._process = loop, process
        self._free = asyncio.Semaphore(self._limit)
        self._idle.clear()
        self._busy.clear()
        self._idle_count = 0

    async def _acquire(self, url: httpx.URL) -> _Connection:
        """An idle connection to the URL's origin, or a new one."""
        now = time.monotonic()
        if now - self._expired_checked_at >= self._keepalive_seconds:
            self._expired_checked_at = now
            await self._close_idle(lambda each: now - each.idle_since >= self._keepalive_seconds)
        origin = f"{url.scheme}://{url.netloc.decode('ascii')}"
        idle = self._idle.get(origin)
        if idle:
            connection = idle.pop()
            self._idle_count -= 1
        else:
            if self.connections >= self._limit:
                await self._close_idle(lambda each: each.origin != origin)
            connection = _Connection(origin, self._new_transport(url))
        self._busy.add(connection)
        return connection

    async def _close_idle(self, unwanted: Callable[[_Connection], bool]) -> None:
        """Close idle connections, including those to workers that no longer exist."""
        closing = []
        for origin, idle in list(self._idle.items()):
            kept = [each for each in idle if not unwanted(each)]
            closing += [each for each in idle if unwanted(each)]
            if kept:
                self._idle[origin] = kept
            else:
                del self._idle[origin]
        self._idle_count -= len(closing)
        for connection in closing:
            await connection.transport.aclose()

    def _new_transport(self, url: httpx.URL) -> httpx.AsyncHTTPTransport:
        if isinstance(self._verify, bool):
            # Reading the CA bundle takes tens of ms, so it is read once per pool.
            self._verify = httpx.create_ssl_context(verify=self._verify)
        context = self._verify.context if isinstance(self._verify, Trust) else self._verify
        one = httpx.Limits(
            max_connections=1, max_keepalive_connections=1, keepalive_expiry=self._keepalive_seconds
        )
        return httpx.AsyncHTTPTransport(
            verify=context,
            limits=one,
            socket_options=self._options,
            proxy=self._proxies.proxy_for(url),
        )

    async def _discard(self, connection: _Connection) -> None:
        """Close a connection instead of reusing it.

        A request that is cancelled at certain points leaves httpcore's connection locked; the next request on it would
        wait until its own timeout.
        """
        if connection not in self._busy:  # of an event loop that has ended
            return
        self._busy.discard(connection)
        self._free.release()
        await connection.transport.aclose()

    async def _replace(self, locked: _Connection, url: httpx.URL) -> _Connection:
        """A new connection in the place of a locked one."""
        await locked.transport.aclose()
        self._busy.discard(locked)
        connection = _Connection(locked.origin, self._new_transport(url))
        self._busy.add(connection)
        return connection

    def _release(self, connection: _Connection) -> None:
        if connection not in self._busy:  # of an event loop that has ended
            return
        self._busy.discard(connection)
        self._free.release()
        if not self._closed:
            connection.idle_since = time.monotonic()
            self._idle.setdefault(connection.origin, []).append(connection)
            self._idle_count += 1
