"""A received request, and the events of its client while the response is written."""

from typing import Protocol

from stoker_wire.http1.messages import Header


class BodyBudget(Protocol):
    """Bounds the memory of request bodies."""

    bytes_max: int
    """Largest body."""

    def take(self, size: int) -> None:
        """Count bytes that came.

        Raises:
            Problem: too many bytes are held.
        """

    def give(self, size: int) -> None:
        """The bytes are released."""


class Request:
    """One request with its complete body."""

    __slots__ = (
        "body",
        "body_held",
        "budget",
        "headers",
        "held_bytes",
        "http_1_0",
        "keep_alive",
        "method",
        "path",
        "query",
        "ticket",
        "websocket",
    )

    def __init__(self) -> None:
        self.method = b""
        self.path = b""
        self.query = b""
        self.headers: list[Header] = []
        self.body = b""
        self.held_bytes = 0
        """Approximate memory use of the head."""
        self.budget: BodyBudget | None = None
        self.body_held = 0
        """Bytes of the body that its budget counts."""
        self.keep_alive = True
        self.http_1_0 = False
        self.ticket = ""
        """The ticket from the path of a job's call."""
        self.websocket = False
        """The request is the handshake of a WebSocket."""

    def header(self, name: bytes) -> bytes | None:
        """The first value of the field, or None; `name` in lower case."""
        for known, value in self.headers:
            if known == name:
                return value
        return None

    def release_body(self) -> None:
        """Return the body's bytes to its budget."""
        held, self.body_held = self.body_held, 0
        if held and self.budget is not None:
            self.budget.give(held)

    def __repr__(self) -> str:
        return f"<Request {self.method.decode()} {self.path.decode(errors='replace')} {len(self.body)} B>"


class TunnelListener(Protocol):
    """Receives what a client sends after the handshake of its WebSocket."""

    def client_data(self, data: bytes) -> None:
        """Bytes came."""

    def client_finished(self) -> None:
        """The client sends no more, but still reads."""


class ResponseListener(Protocol):
    """Receives client events while it produces a response."""

    def client_disconnected(self) -> None:
        """The client closed or lost its connection."""

    def pause_writing(self) -> None:
        """The write buffer is full."""

    def resume_writing(self) -> None:
        """The write buffer has drained."""
