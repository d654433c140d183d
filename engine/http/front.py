"""Takes every request of the engine's port: checks its head, then answers it or hands it to aiohttp's handlers."""

from collections.abc import Callable, Collection

import msgspec

from engine.api.job_api import JobApi
from engine.api.keys import text, unauthorised
from engine.api.problems import problem_of
from engine.api.route_api import RouteApi
from engine.api.web_pages import WebPages
from engine.engine import Engine
from engine.proxy.errors import JOBS, PREFIX, PREFIXES, dialect_of_door, error_body
from engine.settings import Limits
from stoker_wire.http1.limits import Limits as HttpLimits
from stoker_wire.http1.messages import Header, problem_fields
from stoker_wire.http1.request import BodyBudget, Request
from stoker_wire.http1.request_reader import RequestMemory
from stoker_wire.http1.response_cycle import ResponseCycle
from stoker_wire.problem import Problem
from stoker_wire.security.cross_origin import cross_origin_problem
from webserver.aiohttp_bridge import AiohttpBridge

Call = Callable[[Request, ResponseCycle], None]

_MODEL_CALLS = PREFIX.encode()
_JOB_CALLS = JOBS.encode()
_CLOSE = {"Connection": "close"}
_HELD_BYTES_MAX = 256 * 1024 * 1024
"""Heads of all requests together; and bodies of control calls."""


def http_limits(limits: Limits) -> HttpLimits:
    """The server's limits from the engine's."""
    connections = limits.connections
    return HttpLimits(
        head_fields_max=connections.head_fields_max,
        head_seconds_max=connections.head_seconds_max,
        idle_seconds_max=connections.idle_seconds_max,
        connections_max=connections.connections_max,
        body_seconds_max=limits.body_seconds_max,
        body_bytes_max=limits.body_bytes_max,
        bodies_bytes_max=_HELD_BYTES_MAX,
    )


class Front:
    """The engine as the application of the HTTP server."""

    def __init__(
        self,
        engine: Engine,
        *,
        route_api: RouteApi,
        job_api: JobApi,
        pages: WebPages,
        names: Collection[str],
        others: AiohttpBridge,
    ) -> None:
        """
        Args:
            names: the host names under which clients reach this engine, in lower case.
            others: serves what has no call here.
        """
        limits = engine.settings.limits
        self._engine = engine
        self._route_api = route_api
        self._job_api = job_api
        self._pages = pages
        self._names = names
        self._others = others
        self._calls: dict[tuple[bytes, bytes], Call] = {(b"POST", b"/route/"): route_api.handle}
        self._control_bodies = RequestMemory(limits.body_bytes_max, _HELD_BYTES_MAX)
        most = min(limits.openai_body_bytes_max, limits.openai_held_bytes_max)
        self._model_bodies = RequestMemory(most, 4 * _HELD_BYTES_MAX)

    def __call__(self, request: Request, cycle: ResponseCycle) -> None:
        """Answer the request, at once or later."""
        call = self._calls.get((request.method, request.path))
        if call is None:
            self._others(request, cycle)
            return
        self._check_head(request)
        try:
            call(request, cycle)
        except Problem:
            raise
        except Exception as fault:  # noqa: BLE001 - every fault has a problem
            raise problem_of(fault, request.path.decode("latin-1")) from None

    def budget_of(self, request: Request) -> BodyBudget:
        """The budget of a body. Bodies of model calls may be large, so they need a key or a ticket first.

        Raises:
            Problem: 401, the call has neither.
        """
        for prefix in (_MODEL_CALLS, _JOB_CALLS):
            if request.path.startswith(prefix) and request.method != b"OPTIONS":
                name, _, rest = text(request.path[len(prefix) :]).partition("/")
                if prefix is _JOB_CALLS and rest:
                    self._job_api.find(name, rest.partition("/")[0])
                elif not self._route_api.may_have_access(request, name):
                    raise unauthorised()
                return self._model_bodies
        return self._control_bodies

    def describe(self, problem: Problem, request: Request) -> tuple[bytes, tuple[Header, ...]]:
        """A problem's body and header fields, as clients of the path read them."""
        path = request.path.decode("utf-8", "replace")
        body = error_body(problem, dialect_of_door(path)) if path.startswith(PREFIXES) else problem.body()
        return msgspec.json.encode(body), problem_fields(problem) + self._pages.cors_fields(request)

    def _check_head(self, request: Request) -> None:
        """Refuse what readers of HTTP interpret differently, and requests of web pages.

        Raises:
            Problem: the refusal.
        """
        host, origin, site = "", None, None
        authorized = False
        for name, value in request.headers:
            if name == b"host":
                host = text(value)
            elif name == b"authorization":
                if authorized:
                    reason = "a request has one Authorization header, this one has several"
                    raise Problem(400, "header_repeated", reason, headers=_CLOSE)
                authorized = True
            elif name == b"origin":
                origin = text(value)
            elif name == b"sec-fetch-site":
                site = text(value)
            elif name == b"content-encoding" and value.strip().lower() != b"identity":
                reason = "compressed bodies are not accepted: send the body without Content-Encoding"
                raise Problem(415, "content_encoding_unsupported", reason, headers=_CLOSE)
        refused = cross_origin_problem(request.method.decode(), host, origin, site, names=self._names)
        if refused is not None:
            raise refused
