"""Webhooks, signed as in the Standard Webhooks specification (https://www.standardwebhooks.com).

One POST per notice. The signature is HMAC-SHA256 over `<id>.<timestamp>.<body>`; `webhook-id` is the notice's id, which
is the same for every try.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from activities.notices.errors import NotDelivered
from stoker_wire.alerts import Notice

TRY_SECONDS_MAX = 15.0
"""One try: name lookup, connection, request and the head of the answer."""
SECRET_PREFIX = "whsec_"  # noqa: S105 - a prefix of secrets, not a secret
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
RETRY_AFTER_SECONDS_MAX = 3600.0
_ANSWER_HEAD_BYTES_MAX = 16 * 1024
_FINAL = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.GONE,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)
"""Answers about the notice itself. Others are about the receiver, which its operator may repair."""


def signing_key(secret: str) -> bytes:
    """The key in a secret of the form `whsec_<base64>`.

    Raises:
        ValueError: it has another form, or its length is outside 24 to 64 bytes. The message does not contain it.
    """
    advice = "make one with: echo whsec_$(openssl rand -base64 32)"
    if not secret:
        raise ValueError(f"is missing; {advice}")
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError(f"should begin with {SECRET_PREFIX}; {advice}")
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (ValueError, binascii.Error):
        raise ValueError(f"should be base64 after {SECRET_PREFIX}; {advice}") from None
    if not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise ValueError(
            f"should have {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes, got {len(key)}; {advice}"
        )
    return key


def signature(key: bytes, notice_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    signed = f"{notice_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def body_of(notice: Notice) -> bytes:
    """The request's body, the same for every try."""
    content = {
        "type": f"{notice.alert}.{notice.state}",
        "timestamp": datetime.fromtimestamp(notice.at, UTC).isoformat().replace("+00:00", "Z"),
        "data": notice.model_dump(mode="json"),
    }
    return json.dumps(content, separators=(",", ":")).encode()


def is_forbidden(address: str) -> bool:
    """Whether an IP address is no receiver's: link-local ones include the metadata services of clouds."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    found = mapped or parsed
    return found.is_link_local or found.is_multicast or found.is_unspecified or str(found) in _METADATA


_METADATA = frozenset({"fd00:ec2::254", "100.100.100.200", "168.63.129.16"})
"""Metadata services outside the link-local networks."""


class _CheckedResolver(AbstractResolver):
    """Resolves names and removes forbidden addresses, so that a name cannot lead to a metadata service."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        allowed = [each for each in found if not is_forbidden(each["host"])]
        if not allowed:
            raise OSError(f"{host} has only link-local or metadata addresses")
        return allowed

    async def close(self) -> None:
        await self._resolver.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A receiver of signed POST requests."""

    url: str = field(repr=False)
    """It may contain a secret."""
    key: bytes = field(repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    """None: the system's certificate authorities."""
    try_seconds_max: float = TRY_SECONDS_MAX
    now: Callable[[], float] = field(default=time.time, repr=False)

    async def deliver(self, notices: Sequence[Notice]) -> None:
        """Send each notice.

        Raises:
            NotDelivered: no answer, or one that is no success.
        """
        connector = aiohttp.TCPConnector(resolver=_CheckedResolver(), ssl=self.tls or True)
        async with aiohttp.ClientSession(
            connector=connector,
            trust_env=True,
            max_line_size=_ANSWER_HEAD_BYTES_MAX,
            max_field_size=_ANSWER_HEAD_BYTES_MAX,
        ) as session:
            for notice in notices:
                await self._send(session, notice)

    async def _send(self, session: aiohttp.ClientSession, notice: Notice) -> None:
        body, timestamp = body_of(notice), int(self.now())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "stoker",
            "webhook-id": notice.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self.key, notice.id, timestamp, body),
        }
        try:
            async with (
                asyncio.timeout(self.try_seconds_max),
                session.post(self.url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                # The body of the answer is not read: it may be of any size.
                status, retry_after = answer.status, answer.headers.get("Retry-After", "")
                answer.close()
        except TimeoutError:
            raise NotDelivered(f"the receiver did not answer within {self.try_seconds_max:.0f} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NotDelivered(_reason(error)) from None
        if not 200 <= status < 300:
            raise _refusal(status, retry_after)


def _refusal(status: int, retry_after: str) -> NotDelivered:
    seconds = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else None
    text = f"the receiver answered {status}"
    if 300 <= status < 400:
        text += ", a redirect; set the url to its target"
    return NotDelivered(
        text,
        final=status in _FINAL,
        retry_after_seconds=None if seconds is None else min(seconds, RETRY_AFTER_SECONDS_MAX),
    )


def _reason(error: Exception) -> str:
    """The kind of error and the system's reason. The error's own text is omitted: it may contain the URL."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        detail = getattr(cause, "verify_message", "") or type(cause).__name__
        return f"the receiver's certificate is not valid: {detail}"
    if isinstance(error, aiohttp.ClientSSLError):
        return "the receiver does not speak TLS, or no version of it that is accepted here"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the receiver's name is unknown, or leads to no allowed address"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return f"no connection to the receiver: {os.strerror(number) if number else type(error.os_error).__name__}"
    if isinstance(error, aiohttp.InvalidURL):
        return "the url is not valid; correct it in the settings"
    return f"the receiver did not answer in HTTP: {type(error).__name__}"
