"""Takes every request of the engine's port: checks its head, then answers it or hands it to aiohttp's handlers."""

from collections.abc import Collection
from urllib.parse import unquote

import msgspec

from engine.api.cors import CorsPolicy
from engine.api.job_api import JobApi
from engine.api.keys import text, unauthorised
from engine.api.models_api import ModelsApi
from engine.api.openai_api import OpenAIApi
from engine.api.problems import problem_of
from engine.api.request_buffer import AccountBudget
from engine.api.route_api import RouteApi
from engine.api.worker_api import WorkerApi
from engine.engine import Engine
from engine.http.calls import Call
from engine.http.head_checks import HeadChecks
from engine.proxy.errors import JOBS, PREFIX, PREFIXES, dialect_of_door, error_body
from engine.settings import Limits
from stoker_wire.errors.problem import Problem
from stoker_wire.http1.limits import Limits as HttpLimits
from stoker_wire.http1.messages import Header, problem_fields
from stoker_wire.http1.request import BodyBudget, Request
from stoker_wire.http1.request_reader import RequestMemory
from stoker_wire.http1.response_cycle import ResponseCycle
from webserver.aiohttp_bridge import AiohttpBridge

_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})

_MODEL_CALLS = PREFIX.encode()
_JOB_CALLS = JOBS.encode()
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


class RootHandler:
    """The engine as the application of the HTTP server."""

    def __init__(
        self,
        engine: Engine,
        *,
        route_api: RouteApi,
        worker_api: WorkerApi,
        models_api: ModelsApi,
        openai_api: OpenAIApi,
        job_api: JobApi,
        cors: CorsPolicy,
        names: Collection[str],
        others: AiohttpBridge,
    ) -> None:
        """
        Args:
            names: the host names under which clients reach this engine, in lower case.
            others: serves what has no call here.
        """
        self._engine = engine
        self._route_api = route_api
        self._worker_api = worker_api
        self._models_api = models_api
        self._openai_api = openai_api
        self._job_api = job_api
        self._cors = cors
        self._checks = HeadChecks(names, cors, (_MODEL_CALLS, _JOB_CALLS))
        self._others = others
        self._calls: dict[tuple[bytes, bytes], Call] = {
            (b"POST", b"/route/"): route_api.handle,
            (b"GET", b"/v1/models"): models_api.all_models,
            **worker_api.calls,
        }
        self._control_bodies = RequestMemory(engine.settings.limits.body_bytes_max, _HELD_BYTES_MAX)

    def __call__(self, request: Request, cycle: ResponseCycle) -> None:
        """Answer the request, at once or later."""
        self._checks.check(request)
        call = self._calls.get((request.method, request.path)) or self._call_below(request) or self._others
        try:
            call(request, cycle)
        except Problem:
            raise
        except Exception as fault:  # noqa: BLE001 - every fault has a problem
            raise problem_of(fault, text(request.path)) from None

    def _call_below(self, request: Request) -> Call | None:
        """The call of a path with parts; None: aiohttp's handlers serve it, or refuse it."""
        path, method = request.path, request.method
        if path.startswith(_MODEL_CALLS):
            name, _, rest = path[len(_MODEL_CALLS) :].partition(b"/")
            if not name or not rest or method not in _METHODS:
                return None
            if method == b"GET" and rest == b"v1/models":
                return self._models_api.models
            if method == b"GET" and rest.startswith(b"v1/models/") and rest != b"v1/models/":
                return self._models_api.model
            return self._openai_api.preflight if method == b"OPTIONS" else self._openai_api.call
        if path.startswith(_JOB_CALLS) and method in _METHODS:
            parts = path[len(_JOB_CALLS) :].split(b"/", 2)
            if not all(parts[:2]):
                return None
            if len(parts) == 3 or (len(parts) == 2 and method in (b"GET", b"DELETE")):
                return self._job_api.call
            if method == b"OPTIONS":
                return self._job_api.preflight
            return self._job_api.open if len(parts) == 1 and method == b"POST" else None
        return self._worker_api.call_on_own_path(request) if path.startswith(b"/w/") else None

    def budget_of(self, request: Request) -> BodyBudget:
        """The budget of a body. Bodies of model calls may be large, so they need a key or a ticket first.

        Raises:
            Problem: 401, the call has neither.
        """
        for prefix in (_MODEL_CALLS, _JOB_CALLS):
            if request.path.startswith(prefix) and request.method != b"OPTIONS":
                name, _, rest = text(request.path[len(prefix) :]).partition("/")
                name, ticket = unquote(name), unquote(rest.partition("/")[0])
                endpoint, access = self._engine.directory.named(name), None
                if prefix is _JOB_CALLS and ticket:
                    self._job_api.find(name, ticket)
                else:
                    if endpoint is not None:
                        access = self._route_api.access(request, endpoint, "")
                    if access is None and not self._route_api.may_have_access(request):
                        raise unauthorised()
                owner = "" if endpoint is None else endpoint.memo.owner
                return AccountBudget(self._openai_api.bodies, owner, access)
        return self._control_bodies

    def describe(self, problem: Problem, request: Request) -> tuple[bytes, tuple[Header, ...]]:
        """A problem's body and header fields, as clients of the path read them."""
        path = request.path.decode("utf-8", "replace")
        body = error_body(problem, dialect_of_door(path)) if path.startswith(PREFIXES) else problem.body()
        return msgspec.json.encode(body), problem_fields(problem) + self._cors.cors_fields(request)
