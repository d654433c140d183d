"""Requests that are awaited: reports, probes, benchmark runs and callbacks, over the same connections."""

import asyncio

from stoker_pyworker.http.outgoing import Head, OriginFault, OutgoingConnection, Pool

_ANSWER_BYTES_MAX = 64 * 1024 * 1024


class Answer:
    """An answer, received in full."""

    __slots__ = ("body", "head")

    def __init__(self, head: Head, body: bytes) -> None:
        self.head = head
        self.body = body

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.head.status

    def __repr__(self) -> str:
        return f"<Answer {self.status} {len(self.body)} B>"


class _Waiter:
    """A sink that gathers the answer for one awaiting task."""

    __slots__ = ("_bytes", "_head", "_parts", "connection", "future")

    def __init__(self, future: asyncio.Future[Answer]) -> None:
        self.future = future
        self.connection: OutgoingConnection | None = None
        self._head: Head | None = None
        self._parts: list[bytes] = []
        self._bytes = 0

    def sent(self) -> None:
        """Nothing to note."""

    def head(self, head: Head) -> None:
        """Keep it."""
        self._head = head

    def body(self, data: bytes) -> None:
        """Keep it, within reason."""
        self._bytes += len(data)
        if self._bytes <= _ANSWER_BYTES_MAX:
            self._parts.append(data)

    def flush(self) -> None:
        """Nothing is handed on in pieces."""

    def end(self) -> None:
        """Complete."""
        if not self.future.done() and self._head is not None:
            self.future.set_result(Answer(self._head, b"".join(self._parts)))

    def fault(self, fault: OriginFault) -> None:
        """Failed."""
        if not self.future.done():
            self.future.set_exception(fault)


def request_bytes(
    pool: Pool,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    content_type: str = "application/json",
    headers: tuple[tuple[str, str], ...] = (),
) -> tuple[bytes, ...]:
    """A request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {pool.authority.decode()}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None:
        lines += [f"content-type: {content_type}", f"content-length: {len(body)}"]
    head = "\r\n".join([*lines, "", ""]).encode()
    return (head,) if not body else (head + body,)


async def ask(
    pool: Pool,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    seconds_max: float | None,
    content_type: str = "application/json",
    headers: tuple[tuple[str, str], ...] = (),
) -> Answer:
    """Send one request and await its whole answer.

    Raises:
        OriginFault: nobody listens, or the answer broke off.
        TimeoutError: no complete answer within `seconds_max`; the request is dropped.
    """
    waiter = _Waiter(asyncio.get_running_loop().create_future())
    try:
        async with asyncio.timeout(seconds_max):
            request = request_bytes(pool, method, path, body, content_type=content_type, headers=headers)
            pool.submit(waiter, request)
            return await waiter.future
    except BaseException:
        pool.cancel(waiter)
        raise
