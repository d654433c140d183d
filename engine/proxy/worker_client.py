"""Sends a request to a worker, and says in what way that failed."""

import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from types import SimpleNamespace, TracebackType
from typing import Self

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from stoker_wire.picklable import PicklableError
from stoker_wire.security.certificate_faults import certificate_fault

_CONNECT_SECONDS_MAX = 10.0
_AUTO_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""aiohttp would add these where the client sent none."""


class Failure(StrEnum):
    """Why a request has no answer."""

    UNREACHABLE = "unreachable"
    """No connection: the worker did not get the request."""
    CERTIFICATE = "certificate"
    """The worker's certificate is not trusted, or TLS failed otherwise."""
    BROKE_OFF = "broke_off"
    """The connection ended before the head of an answer was complete."""
    MALFORMED = "malformed"
    """The answer is not HTTP."""
    SILENT = "silent"
    """No byte came for as long as the endpoint allows."""


class WorkerFailed(PicklableError, Exception):
    """The worker failed before a byte of its answer was passed on."""

    def __init__(self, failure: str, message: str) -> None:
        self.failure = failure
        """A `Failure`."""
        super().__init__(message)


@dataclass
class Call:
    """One request to one worker."""

    method: str
    url: str
    headers: "CIMultiDict[str]"
    body: Callable[[], bytes | AsyncIterator[bytes | memoryview]] | None
    silence_seconds_max: float
    sent: Callable[[], None]
    """Called when the head of the request goes out: the worker may have seen the ticket."""
    reused: bool = field(default=False, init=False)
    """The connection had served another request before."""


class WorkerClient:
    """Connections to workers. Cookies and redirects of workers are ignored: they are machines of third parties."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self._kept: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._kept, self._fresh = self._session(close=False), self._session(close=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in (self._kept, self._fresh):
            if session is not None:
                await session.close()

    def _session(self, *, close: bool) -> aiohttp.ClientSession:
        tracing = aiohttp.TraceConfig()
        tracing.on_request_headers_sent.append(_head_sent)
        tracing.on_connection_reuseconn.append(_reused)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls or True, force_close=close),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            trace_configs=[tracing],
            skip_auto_headers=_AUTO_HEADERS,
        )

    async def send(self, call: Call, *, fresh: bool = False) -> aiohttp.ClientResponse:
        """The head of the worker's answer.

        Raises:
            WorkerFailed: the worker sent no head.
        """
        session = self._fresh if fresh else self._kept
        if session is None:
            raise RuntimeError("the client is not open")
        call.reused = False
        timeout = aiohttp.ClientTimeout(
            total=None, connect=_CONNECT_SECONDS_MAX, sock_read=call.silence_seconds_max
        )
        try:
            return await session.request(
                call.method,
                URL(call.url, encoded=True),
                data=None if call.body is None else call.body(),
                headers=call.headers,
                allow_redirects=False,
                read_until_eof="Upgrade" not in call.headers,
                timeout=timeout,
                trace_request_ctx=call,
            )
        except (aiohttp.ClientError, TimeoutError) as fault:
            raise worker_failed(fault) from None


def worker_failed(fault: aiohttp.ClientError | TimeoutError) -> WorkerFailed:
    """The failure behind a fault of aiohttp's client."""
    if isinstance(fault, aiohttp.ClientSSLError):
        reason = getattr(fault, "certificate_error", None) or getattr(fault, "os_error", None) or fault
        said = certificate_fault(reason) or getattr(reason, "reason", "") or str(reason)
        return WorkerFailed(Failure.CERTIFICATE, str(said)[:200])
    if isinstance(fault, aiohttp.ConnectionTimeoutError | aiohttp.ClientConnectorError):
        return WorkerFailed(Failure.UNREACHABLE, type(fault).__name__)
    if isinstance(fault, TimeoutError):
        return WorkerFailed(Failure.SILENT, type(fault).__name__)
    if isinstance(fault, aiohttp.ClientResponseError | aiohttp.ClientPayloadError):
        return WorkerFailed(Failure.MALFORMED, type(fault).__name__)
    return WorkerFailed(Failure.BROKE_OFF, type(fault).__name__)


async def _head_sent(
    _: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceRequestHeadersSentParams
) -> None:
    call: Call = context.trace_request_ctx
    call.sent()


async def _reused(
    _: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceConnectionReuseconnParams
) -> None:
    call: Call = context.trace_request_ctx
    call.reused = True
