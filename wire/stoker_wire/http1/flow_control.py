"""Backpressure of one client connection in both directions, and detection of stalled readers."""

import asyncio
import time

from stoker_wire.http1.sockets import is_closed_by_peer

_PROGRESS_BYTES = 64 * 1024
"""A client must read this much within the stall time. A few bytes now and then would hold the response in memory."""


class FlowControl:
    """Pauses reading, and measures whether the client reads while the write buffer is full."""

    __slots__ = (
        "_reading",
        "_stall_deadline",
        "_stall_seconds_max",
        "_transport",
        "_unread_bytes",
        "write_paused",
    )

    def __init__(self, transport: asyncio.Transport, stall_seconds_max: float) -> None:
        self._transport = transport
        self._stall_seconds_max = stall_seconds_max
        self._reading = True
        self._unread_bytes = 0
        self._stall_deadline = 0.0
        self.write_paused = False
        """The write buffer is full."""

    def pause_writing(self) -> None:
        """The write buffer has become full."""
        self.write_paused = True
        self._unread_bytes = self._transport.get_write_buffer_size()
        self._stall_deadline = time.monotonic() + self._stall_seconds_max

    def resume_writing(self) -> None:
        """The write buffer has drained."""
        self.write_paused = False

    def set_reading(self, reading: bool) -> None:
        """Pause or resume reading from the client."""
        if reading is self._reading or self._transport.is_closing():
            return
        self._reading = reading
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def has_left(self) -> bool:
        """Whether the client has disconnected while nothing is read from it; reading would tell it otherwise."""
        return not self._reading and not self._transport.is_closing() and is_closed_by_peer(self._transport)

    def is_stalled(self, now: float) -> bool:
        """Whether the client made no progress within the stall time; `now` is monotonic, s.

        A client that keeps reading is not stalled, even when the complete response takes longer.
        """
        if not self.write_paused:
            return False
        unread = self._transport.get_write_buffer_size()
        if self._unread_bytes - unread >= _PROGRESS_BYTES:
            self._stall_deadline = now + self._stall_seconds_max
            self._unread_bytes = unread
        elif unread > self._unread_bytes:
            self._unread_bytes = unread
        return now >= self._stall_deadline
