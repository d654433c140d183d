"""The path of a model call at its worker, and the route that serves it."""

from engine.routing.endpoint import Endpoint
from engine.routing.served_routes import ServedRoutes
from stoker_wire.errors.problem import Problem
from stoker_wire.http.path_pattern import is_ambiguous
from stoker_wire.http1.request import Request
from stoker_wire.workload import ServedRoute

_RESERVED = ("/session/", "/pyworker/", "/healthz")
"""Paths that the worker serves itself."""
_STORED = tuple(
    f"/v1/{name}"
    for name in ("assistants", "batches", "containers", "evals", "files", "fine_tuning", "threads", "uploads")
)
"""OpenAI's APIs about objects that it stores. A model server has none, so they start no worker."""

_REMEMBERED_CHARS_MAX = 256


def path_of(endpoint: Endpoint, request: Request, path: str) -> tuple[str, ServedRoute | None]:
    """The path at the worker, and its route if workers report their routes.

    Raises:
        Problem: 404, no worker serves it; 405, none serves it by this method.
    """
    path = path.partition("#")[0]
    served, websocket, method = endpoint.served, request.websocket, request.method.decode()
    found = served.resolved(method, path, websocket=websocket)
    if found is None:
        found = _find_path(served, method, path, websocket=websocket)
        if len(path) <= _REMEMBERED_CHARS_MAX:
            served.remember(method, path, found, websocket=websocket)
    return found


def _find_path(
    served: ServedRoutes, method: str, path: str, *, websocket: bool
) -> tuple[str, ServedRoute | None]:
    # An HTTP client or a model server resolves `..`, and would reach another route than the one checked here.
    has_dots = is_ambiguous(path)
    for each in () if has_dots else (path, path.rstrip("/")):
        route = served.find(method, each, websocket=websocket)
        if route is not None and not each.startswith(_RESERVED):
            return each, route
    path = path.rstrip("/")
    unknown = has_dots or bool(served.paths) or path.startswith(_STORED)
    if (allowed := served.methods(path)) and unknown and not path.startswith(_RESERVED):
        raise _wrong_method(path, allowed, method, websocket=websocket)
    if unknown or path.startswith(_RESERVED):
        known = ", ".join(served.paths) or "see the handlers of its workers"
        raise Problem(
            404, "not_found", f"{path[:80]} is not served by this endpoint; these are: {known[:500]}"
        )
    return path, None


def _wrong_method(path: str, allowed: tuple[str, ...], method: str, *, websocket: bool) -> Problem:
    names = ", ".join(allowed)
    if websocket:
        message = f"{path[:80]} takes no WebSocket; send an HTTP request, without Upgrade"
        return Problem(400, "upgrade_unsupported", message)
    if method in allowed:
        message = f"{path[:80]} takes a WebSocket handshake"
        return Problem(426, "websocket_expected", message, headers={"Upgrade": "websocket"})
    return Problem(405, "method_not_allowed", f"{path[:80]} takes {names}", headers={"Allow": names})
