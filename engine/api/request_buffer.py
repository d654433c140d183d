"""RequestBuffer that the OpenAI door holds while their calls wait for a worker: the bytes as they came, bounded in sum and shared among accounts."""

from collections import Counter
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import web

from engine.api.parsing import bounded_arrival, json_object
from engine.settings import Limits
from stoker_wire.problem import Problem
from stoker_wire.security.fingerprint import fingerprint
from webserver.request_checks import reject_oversized_body

_SLICE_BYTES = 64 * 1024
"""Handed to the connection at a time, so that it has no second copy of a large body to keep."""


class RequestBuffer:
    """What all calls hold together. One call is bounded too, but as many as there are connections would be a terabyte.

    An account holds no more than it leaves free, except by one body alone: half of the whole by itself, a third beside
    another that holds as much as it may, and so on, so that no account's crowd keeps the others out.
    """

    def __init__(self, limits: Limits) -> None:
        self.each_max = min(limits.openai_body_bytes_max, limits.openai_held_bytes_max)
        self._all_max = limits.openai_held_bytes_max
        self._held_by: Counter[str] = Counter()
        self.held = 0

    def __repr__(self) -> str:
        return f"<RequestBuffer {self.held} of {self._all_max} bytes, {len(self._held_by)} accounts>"

    def take(self, account: str, size: int, of_body: int) -> None:
        """Room for so many bytes more of a body of this account that has had so many.

        Raises:
            Problem: 413, the body is too large; 429, the account's bodies together are; 503, all bodies together are.
        """
        if of_body + size > self.each_max:
            raise Problem(413, "body_too_large", f"the body is larger than {self.each_max} bytes")
        free = self._all_max - self.held - size
        if free < 0:
            said = (
                f"calls that wait for a worker hold {self.held} of {self._all_max} bytes, and this body does not fit in; "
                "try again in some seconds, or have engine.limits.openai_held_bytes_max raised"
            )
            raise Problem(503, "bodies_full", said, headers={"Retry-After": "5"})
        account_held = self._held_by[account]
        if account_held > of_body and account_held + size > free:
            said = (
                f"calls of this account that wait for a worker hold {account_held} bytes, and with this body they would hold "
                "more than they leave free for other accounts; try again in some seconds, or have "
                "engine.limits.openai_held_bytes_max raised"
            )
            raise Problem(429, "account_bodies_full", said, headers={"Retry-After": "5"})
        self.held += size
        self._held_by[account] += size

    def give(self, account: str, size: int) -> None:
        """So many bytes of this account are let go."""
        self.held -= size
        self._held_by[account] -= size
        if not self._held_by[account]:
            del self._held_by[account]


class BufferedBody:
    """One call's body. It is not kept parsed: objects take many times the room of their JSON."""

    def __init__(self, bodies: RequestBuffer, account: str) -> None:
        self._bodies = bodies
        self._account = account
        self._data = b""
        self._taken = 0

    def __repr__(self) -> str:
        return f"<BufferedBody {self._taken} bytes>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()

    async def arrive(self, request: web.Request) -> None:
        """Read it, up to limits of its own: prompts with images are larger than control calls.

        Raises:
            Problem: 400, no JSON object; 408; 413; 429; 503.
        """
        reject_oversized_body(request, self._bodies.each_max)
        chunks = []
        async with bounded_arrival(request):
            async for chunk in request.content.iter_any():
                self._bodies.take(self._account, len(chunk), self._taken)
                self._taken += len(chunk)
                chunks.append(chunk)
        data = b"".join(chunks)
        json_object(data)
        self._data = data if data.strip() else b"{}"

    def drop(self) -> None:
        """It is not needed again."""
        self._bodies.give(self._account, self._taken)
        self._data, self._taken = b"", 0

    def fingerprint(self, path: str) -> str:
        """What all copies of this call have in common (`stoker_wire.security.fingerprint`)."""
        return fingerprint(path, self._data)

    def enveloped(self, route: dict[str, Any]) -> "Envelope":
        """As a worker takes it."""
        return Envelope(route, self._data)


class Envelope:
    """The payload with its ticket, as JSON, in parts."""

    def __init__(self, route: dict[str, Any], payload: bytes) -> None:
        self._head = b'{"auth_data":' + msgspec.json.encode(route) + b',"session_id":null,"payload":'
        self._payload = payload

    def __repr__(self) -> str:
        return f"<Envelope {len(self)} bytes>"

    def __len__(self) -> int:
        return len(self._head) + len(self._payload) + 1

    async def parts(self) -> AsyncIterator[bytes | memoryview]:
        """All of it; one part if it is small."""
        if len(self) <= _SLICE_BYTES:
            yield self._head + self._payload + b"}"
            return
        yield self._head
        view = memoryview(self._payload)
        for at in range(0, len(view), _SLICE_BYTES):
            yield view[at : at + _SLICE_BYTES]
        yield b"}"
