"""A reverse proxy that protects the Temporal dev server's web UI from web pages of other origins.

The UI's server accepts any `Host`, so a web page could signal workflows by DNS rebinding. The proxy listens on the UI's
port and refuses cross-origin requests. The UI's own server listens on a port to which browsers do not connect.
"""

import asyncio
import errno
import secrets
import socket
import sys

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from run.errors import CommandError
from stoker_wire.errors.problem import Problem
from webserver.connections import ConnectionLimiter, listen
from webserver.request_checks import Handler, reject_ambiguous_requests, reject_cross_origin

BLOCKED_PORTS = (
    *(1719, 1720, 1723, 2049, 3659, 4045, 5060, 5061, 6000, 6566),
    *(6665, 6666, 6667, 6668, 6669, 6697, 10080),
)
"""Ports from 1024 up that browsers block: those in the Fetch standard that Chromium blocks too.

Source: https://fetch.spec.whatwg.org/#port-blocking
"""

_BODY_BYTES_MAX = 8 * 2**20
_PIECE_BYTES = 64 * 1024
_HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"),
        *("te", "trailer", "transfer-encoding", "upgrade", "host", "content-length", "origin"),
    }
)


def blocked_address(ip: str) -> tuple[str, int]:
    """A free loopback address and port to which browsers do not connect.

    Raises:
        CommandError: every such port is in use.
    """
    hosts = [ip]
    if sys.platform == "linux" and ip == "127.0.0.1":
        hosts += [f"127.0.0.{last}" for last in range(2, 255)]  # Linux answers on all of 127.0.0.0/8
    start = secrets.randbelow(len(BLOCKED_PORTS))
    for host in hosts:
        for port in (*BLOCKED_PORTS[start:], *BLOCKED_PORTS[:start]):
            if _is_free(host, port):
                return host, port
    raise CommandError(
        f"no port is free for the Temporal UI behind its guard: it needs one of {', '.join(map(str, BLOCKED_PORTS))} "
        f"on {ip}, because browsers connect to none of them; free one, or set temporal.ui_port to null",
        exit_code=3,
    )


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.bind((host, port))
        except OSError as fault:
            if fault.errno in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
                return False
            raise
    return True


class GuardedUi:
    """The running proxy."""

    def __init__(
        self,
        runner: web.AppRunner,
        server: asyncio.Server,
        limiter: ConnectionLimiter,
        session: aiohttp.ClientSession,
    ) -> None:
        self._runner = runner
        self._server = server
        self._limiter = limiter
        self._session = session

    @classmethod
    async def start(cls, host: str, port: int, backend: str) -> "GuardedUi":
        """Listen on `host` and `port`, and forward requests to the UI's server at the URL `backend`.

        Raises:
            OSError: the address is in use or does not belong to this machine.
        """
        session = aiohttp.ClientSession(
            trust_env=False,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            timeout=aiohttp.ClientTimeout(total=None, connect=10),
        )
        forward = _Forward(session, backend)
        app = web.Application(
            middlewares=[_problems, reject_ambiguous_requests, reject_cross_origin()],
            client_max_size=_BODY_BYTES_MAX,
        )
        app.router.add_route("*", "/{path:.*}", forward.handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        try:
            await runner.setup()
            server, limiter = await listen(runner, host, port)
        except BaseException:
            await runner.cleanup()
            await session.close()
            raise
        return cls(runner, server, limiter, session)

    async def close(self) -> None:
        """Stop listening."""
        self._server.close()
        await self._runner.cleanup()
        self._limiter.close()
        await self._session.close()


class _Forward:
    """Forwards a request to the UI's server and streams the response back."""

    def __init__(self, session: aiohttp.ClientSession, backend: str) -> None:
        self._session = session
        self._backend = backend

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The response of the UI's server."""
        body = await request.read()
        fields = [(name, text) for name, text in request.headers.items() if name.lower() not in _HOP_BY_HOP]
        try:
            answer = await self._session.request(
                request.method,
                URL(f"{self._backend}{request.raw_path}", encoded=True),
                headers=CIMultiDict(fields),
                data=body or None,
                allow_redirects=False,
            )
        except aiohttp.ClientConnectionError:
            raise Problem(
                502, "ui_unavailable", "the Temporal UI does not answer yet; reload the page"
            ) from None
        async with answer:
            response = web.StreamResponse(status=answer.status)
            for name, text in answer.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    response.headers.add(name, text)
            await response.prepare(request)
            async for piece in answer.content.iter_chunked(_PIECE_BYTES):
                await response.write(piece)
            await response.write_eof()
            return response


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Problem as problem:
        return web.json_response(problem.body(), status=problem.status, headers=problem.headers)
