"""A request as the application gets it, and whoever answers it."""

from typing import Protocol

from stoker_pyworker.http.messages import Header


class Request:
    """One request, received in full."""

    __slots__ = ("body", "headers", "held_bytes", "http_1_0", "keep_alive", "method", "path", "query")

    def __init__(self) -> None:
        self.method = b""
        self.path = b""
        self.query = b""
        self.headers: list[Header] = []
        self.body = b""
        self.held_bytes = 0
        """Memory that it takes, about."""
        self.keep_alive = True
        self.http_1_0 = False

    def header(self, name: bytes) -> bytes | None:
        """The field's first value, or None; `name` in lower case."""
        for known, value in self.headers:
            if known == name:
                return value
        return None

    def __repr__(self) -> str:
        return f"<Request {self.method.decode()} {self.path.decode(errors='replace')} {len(self.body)} B>"


class Listener(Protocol):
    """Whoever answers a request, told what becomes of the client meanwhile."""

    def client_gone(self) -> None:
        """The client closed or broke its connection: nobody reads the answer."""

    def client_full(self) -> None:
        """The client reads slower than it is written to: hold back."""

    def client_drained(self) -> None:
        """The client has caught up."""
