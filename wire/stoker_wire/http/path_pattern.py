"""Paths that a worker serves: exact ones, and patterns such as `/history/{id}` and `/files/{path:path}`.

Worker and engine match the path as the client sent it, percent-encoding included, with the same code.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar
from urllib.parse import unquote

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
"""Methods that a route may take."""
_BRACES = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WILDCARD = ":path"
_SEPARATOR = re.compile(r"[/\\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DECODINGS_MAX = 4
"""A path that is still encoded after so many rounds is refused."""


class PathPattern:
    """A path with variables. `{name}` is one segment; `{name:path}`, at the end only, is the rest of the path."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for an invalid pattern."""
        self.text = text
        self.is_exact = "{" not in text and "}" not in text
        self.shape = _BRACES.sub(lambda found: "{:path}" if found[1].endswith(_WILDCARD) else "{}", text)
        """The same for patterns that match the same paths."""
        self._expression = re.compile("".join(_expressions(text)))
        first = text.find("{")
        wild = text.endswith(_WILDCARD + "}")
        self.order = (not self.is_exact, wild, -text.count("/"), -(len(text) if first < 0 else first))
        """Sorts the more specific pattern first."""

    def __repr__(self) -> str:
        return f"<PathPattern {self.text}>"

    def matches(self, path: str) -> bool:
        """Whether the pattern matches. No variable matches what a server could read as another path."""
        if self.is_exact:
            return path == self.text
        found = self._expression.fullmatch(path)
        if found is None or is_ambiguous(path):
            return False
        return not any(
            _SEPARATOR.search(unquote(value)) for name, value in found.groupdict().items() if name != "_rest"
        )


def _expressions(text: str) -> Iterator[str]:
    names: set[str] = set()
    parts = _BRACES.split(text)
    if any("{" in part or "}" in part for part in parts):
        raise ValueError(f"expected paired braces, received {text!r}")
    for number, part in enumerate(parts):
        if number % 2 == 0:
            yield re.escape(part)
            continue
        name = part.removesuffix(_WILDCARD)
        if not _NAME.fullmatch(name) or name in names:
            raise ValueError(f"expected a variable such as {{id}} or {{rest:path}}, received {{{part}}}")
        names.add(name)
        before, after = parts[number - 1], parts[number + 1]
        if not before.endswith("/") or (after and not after.startswith("/")):
            raise ValueError(f"{{{part}}}: a variable is a whole segment, between slashes")
        if name == part:
            yield f"(?P<{name}>[^/]+)"
        elif number == len(parts) - 2 and not after:
            yield "(?P<_rest>.+)"
        else:
            raise ValueError(f"{{{part}}}: {_WILDCARD} is allowed in the last variable only, at the end")


def is_ambiguous(path: str) -> bool:
    """Whether a server could read the path as another one: dot segments or control characters, also encoded."""
    if path.startswith("//"):
        return True
    for _ in range(_DECODINGS_MAX):
        if _CONTROL.search(path):
            return True
        if any(segment.partition(";")[0] in {".", ".."} for segment in _SEPARATOR.split(path)):
            return True
        decoded = unquote(path)
        if decoded == path:
            return False
        path = decoded
    return True


class Served(Protocol):
    """A route, for a `RouteTable`."""

    @property
    def pattern(self) -> PathPattern:
        """The paths."""

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods; GET includes HEAD. Unused for a WebSocket."""

    @property
    def websocket(self) -> bool:
        """Whether the route takes WebSocket handshakes, and nothing else."""


R = TypeVar("R", bound=Served)


class RouteTable(Generic[R]):
    """Finds the route of a request: the most specific pattern with the request's method."""

    def __init__(self, routes: Iterable[R]) -> None:
        self.routes = tuple(sorted(routes, key=lambda route: route.pattern.order))

    def __repr__(self) -> str:
        return f"<RouteTable {', '.join(route.pattern.text for route in self.routes)}>"

    def find(self, method: str, path: str, *, websocket: bool = False) -> R | None:
        """The route, if there is one."""
        return next(
            (
                route
                for route in self.routes
                if route.websocket is websocket
                and (websocket or takes(route.methods, method))
                and route.pattern.matches(path)
            ),
            None,
        )

    def allowed(self, path: str) -> tuple[str, ...]:
        """The methods that the path takes. A WebSocket counts as GET. Empty: the path is not served."""
        found = [route for route in self.routes if route.pattern.matches(path)]
        names = {name for route in found for name in (("GET",) if route.websocket else route.methods)}
        return tuple(name for name in METHODS if takes(tuple(names), name))


def takes(methods: tuple[str, ...], method: str) -> bool:
    """Whether a request of this method is among the methods."""
    return method in methods or (method == "HEAD" and "GET" in methods)


def overlap(one: Served, other: Served) -> bool:
    """Whether both routes take the same requests, so that one of them would never be used."""
    if one.pattern.shape != other.pattern.shape or one.websocket is not other.websocket:
        return False
    return one.websocket or any(takes(one.methods, name) and takes(other.methods, name) for name in METHODS)
