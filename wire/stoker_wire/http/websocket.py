"""WebSocket frames in a byte stream that a proxy passes on unchanged (RFC 6455 §5.2)."""

import struct
from collections.abc import Iterable

GOING_AWAY = 1001
"""The server stops."""
POLICY = 1008
"""The connection is over one of the server's limits."""
FAILED = 1011
"""A server behind this one failed."""

PROTOCOL = "stoker"
"""Selected when the server behind selects no subprotocol: a browser that offered some expects one in the answer."""
TICKET_PROTOCOL = "stoker.ticket."
"""A browser can set no header fields on a WebSocket, so it offers its ticket as a subprotocol with this prefix."""
KEY_PROTOCOLS = ("stoker.key.", "openai-insecure-api-key.")
"""The same for a key at the engine; the second one is OpenAI's."""

_CLOSE = 0x8
_REASON_BYTES_MAX = 123


class FrameTracker:
    """Follows the frames of one direction. It keeps no payload, so frames of any size take the same memory."""

    __slots__ = ("_head", "_unread", "closed")

    def __init__(self) -> None:
        self._head = b""
        self._unread = 0
        """Bytes of the current frame's payload that have not passed yet."""
        self.closed = False
        """A close frame has begun."""

    def __repr__(self) -> str:
        return f"<FrameTracker {'closed' if self.closed else 'open'}, {self._unread} bytes to come>"

    @property
    def between_frames(self) -> bool:
        """Whether another frame may be inserted here."""
        return not self._unread and not self._head

    def feed(self, data: bytes) -> None:
        """Follow the next bytes."""
        at, end = 0, len(data)
        while at < end:
            if self._unread:
                step = min(self._unread, end - at)
                self._unread -= step
                at += step
                continue
            had = len(self._head)
            head = self._head + data[at : at + 14 - had]
            size = _head_size(head)
            if size is None or len(head) < size:
                self._head = head
                return
            self._head = b""
            at += size - had
            self._unread = _payload_size(head)
            self.closed = self.closed or head[0] & 0x0F == _CLOSE


def _head_size(head: bytes) -> int | None:
    if len(head) < 2:
        return None
    extended = {126: 2, 127: 8}.get(head[1] & 0x7F, 0)
    return 2 + extended + (4 if head[1] & 0x80 else 0)


def _payload_size(head: bytes) -> int:
    size = head[1] & 0x7F
    if size == 126:
        return int.from_bytes(head[2:4])
    return int.from_bytes(head[2:10]) if size == 127 else size


def close_frame(code: int, reason: str, *, masked: bool = False) -> bytes:
    """A close frame. Frames to a server are masked, here with zeros."""
    text = reason.encode()[:_REASON_BYTES_MAX].decode("utf-8", "ignore").encode()
    payload = struct.pack("!H", code) + text
    mask = b"\0\0\0\0" if masked else b""
    return bytes((0x80 | _CLOSE, len(payload) | (0x80 if masked else 0))) + mask + payload


def split_protocols(offers: Iterable[str], *prefixes: str) -> tuple[list[str], str]:
    """The offered subprotocols for the server behind, and the secret of the one with a prefix; "" without one.

    Args:
        offers: the values of `Sec-WebSocket-Protocol`.
    """
    kept, secret = [], ""
    for name in (part.strip() for value in offers for part in value.split(",")):
        prefix = next((each for each in prefixes if name.startswith(each)), None)
        if prefix is not None:
            secret = name.removeprefix(prefix)
        elif name and name != PROTOCOL:
            kept.append(name)
    return kept, secret
