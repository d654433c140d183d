"""Real receivers of notices on loopback: an HTTP server and an SMTP server, which can misbehave."""

import asyncio
import base64
import email
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import default
from types import TracebackType
from typing import Self

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Received:
    """One request."""

    headers: dict[str, str]
    body: bytes


class HttpReceiver:
    """Records every POST. `answers` are the statuses of the next answers, then 204."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Received] = []
        self.answers: list[int | Answer] = []
        self.headers: dict[str, str] = {}
        self.port = 0
        self._tls = tls
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/hook?token=very-secret"

    async def wait_for(self, count: int, seconds: float = 60.0) -> list[Received]:
        """The requests, once there are this many."""
        async with asyncio.timeout(seconds):
            while len(self.requests) < count:
                await asyncio.sleep(0.02)
        return self.requests

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls)
        await site.start()
        assert site._server is not None
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(Received(dict(request.headers), await request.read()))
        answer = self.answers.pop(0) if self.answers else 204
        if callable(answer):
            return await answer(request)
        return web.Response(status=answer, headers=self.headers)


@dataclass
class Mail:
    """One accepted message."""

    sender: str
    recipients: list[str]
    raw: bytes
    encrypted: bool
    login: str

    @property
    def message(self) -> EmailMessage:
        return email.message_from_bytes(self.raw, policy=default)  # type: ignore[return-value]


@dataclass
class SmtpReceiver:
    """An SMTP server with STARTTLS and AUTH PLAIN. `replies` replaces its reply to a command, by the command."""

    tls: ssl.SSLContext | None = None
    password: str = ""
    replies: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    """Accept connections and say nothing."""
    accepted: list[Mail] = field(default_factory=list)
    port: int = 0
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.silent:
                await reader.read()
                return
            await _Dialogue(self, reader, writer).run()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()


class _Dialogue:
    def __init__(
        self, server: SmtpReceiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server, self.reader, self.writer = server, reader, writer
        self.encrypted, self.login, self.sender = False, "", ""
        self.recipients: list[str] = []

    async def run(self) -> None:
        await self._say(self.server.replies.get("CONNECT", "220 test"))
        while line := (await self.reader.readline()).decode().strip():
            command = line.split()[0].upper()
            if command in self.server.replies and command != "RCPT":
                await self._say(self.server.replies[command])
            elif command == "QUIT":
                await self._say("221 bye")
                return
            else:
                await getattr(self, f"_{command.lower()}")(line)

    async def _ehlo(self, line: str) -> None:
        offers = ["test"]
        if self.server.tls and not self.encrypted:
            offers.append("STARTTLS")
        if self.server.password:
            offers.append("AUTH PLAIN")
        offers.append("8BITMIME")
        await self._say("\r\n".join([*(f"250-{each}" for each in offers[:-1]), f"250 {offers[-1]}"]))

    async def _starttls(self, line: str) -> None:
        assert self.server.tls is not None
        await self._say("220 go on")
        await self.writer.start_tls(self.server.tls)
        self.encrypted = True

    async def _auth(self, line: str) -> None:
        _, user, password = base64.b64decode(line.split()[2]).decode().split("\0")
        good = password == self.server.password
        self.login = user if good else ""
        await self._say("235 welcome" if good else "535 wrong password")

    async def _mail(self, line: str) -> None:
        self.sender, self.recipients = line.split("<")[1].split(">", maxsplit=1)[0], []
        await self._say("250 ok")

    async def _rcpt(self, line: str) -> None:
        address = line.split("<")[1].split(">", maxsplit=1)[0]
        refusal = self.server.replies.get("RCPT") or self.server.replies.get(address)
        if refusal is None:
            self.recipients.append(address)
        await self._say(refusal or "250 ok")

    async def _data(self, line: str) -> None:
        await self._say("354 go on")
        content = await self.reader.readuntil(b"\r\n.\r\n")
        raw = content.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
        self.server.accepted.append(Mail(self.sender, self.recipients, raw, self.encrypted, self.login))
        await self._say(self.server.replies.get("END", "250 taken"))

    async def _rset(self, line: str) -> None:
        await self._say("250 ok")

    async def _say(self, line: str) -> None:
        self.writer.write(f"{line}\r\n".encode())
        await self.writer.drain()
