"""Configured routes: finds the one of a request, runs its hooks on a payload and builds the request to the model."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import structlog

from stoker_pyworker.config import HandlerConfig, JsonDataException, JsonObject, parse_workload
from stoker_pyworker.payloads import Body, Form
from stoker_pyworker.proxy import multipart, request_envelope
from stoker_pyworker.proxy.request_envelope import AUTH_HEADER, SESSION_HEADER, ParsedRequest
from stoker_wire.errors.problem import Problem
from stoker_wire.http.path_pattern import RouteTable
from stoker_wire.http1.messages import HOP_BY_HOP, named_by_connection
from stoker_wire.http1.request import Request
from stoker_wire.parsing.strict_json import NotJson, parse_answer
from stoker_wire.workload import ServedRoute, WorkloadRule

log = structlog.get_logger(component="routes")

_NOT_FORWARDED = HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"content-type",
    b"api-key",
    b"authorization",
    b"cookie",
    b"expect",
    b"x-api-key",
    AUTH_HEADER,
    SESSION_HEADER,
}
"""Hop-by-hop fields, fields that the worker sets, and the client's credentials."""

_NOT_FORWARDED_BY_WEBSOCKET = _NOT_FORWARDED | {b"origin", b"sec-websocket-protocol"}
"""The ticket admits a page of any origin, and a model server would compare the origin with its own address."""
_BODILESS_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_PREFIXES = (b"/pyworker/", b"/session/")
"""A pattern of a route does not cover these paths."""
_PLAIN_CONNECTION = frozenset({b"keep-alive", b"close", b"Keep-Alive"})
_JOIN_BYTES_MAX = 256 * 1024
"""Smaller bodies are joined with the head for one write; larger ones are not copied."""


class PreparedRoute:
    """One `HandlerConfig`, ready for requests."""

    def __init__(self, config: HandlerConfig, authority: bytes) -> None:
        self.config = config
        self.pattern = config.pattern
        self.methods = config.methods
        self.websocket = config.websocket
        self.in_job = config.in_job
        self._authority = authority
        self.parallel = config.allow_parallel_requests
        self.max_queue_time = config.max_queue_time
        self.answers_with_hook = config.response_generator is not None or config.remote_function is not None
        changes = config.request_parser is not None or config.payload_class is not None
        self._changes_payload = changes
        calculator = config.workload_calculator
        self._rule = calculator if isinstance(calculator, WorkloadRule) else None
        self.calculates = self._rule is None and (calculator is not None or config.payload_class is not None)
        """Only this worker can compute the workload, so its responses name it."""
        self._is_free = config.in_job and (config.websocket or _BODILESS_METHODS.issuperset(config.methods))
        self._reads_payload = changes or calculator is not None or config.remote_function is not None

    @property
    def served(self) -> ServedRoute:
        """The route as the worker reports it."""
        return ServedRoute(
            path=self.config.route,
            methods=self.methods,
            websocket=self.websocket,
            in_job=self.in_job,
            rule=self._rule,
            calculated=self.calculates,
        )

    def prepare(self, parsed: ParsedRequest, cost: float) -> tuple[float, JsonObject | None]:
        """Run the hooks: the workload, and the decoded payload if a hook needed it. Updates `parsed.body`.

        Raises:
            Problem: 422, the payload is not valid for the hooks.
        """
        if not self._reads_payload:
            return (0.0 if self._is_free else cost), None
        if not parsed.has_body:
            return (self.workload({}, cost) if self._rule is None else self._rule.workload(None)), None
        try:
            payload = request_envelope.decode_json(parsed.body)
        except Problem:
            if not parsed.is_json:
                return self._other_body(parsed, cost)
            if self._rule is not None and not self._changes_payload:
                return self._weighed_as_python(parsed, self._rule)
            raise
        if not isinstance(payload, dict):
            if not parsed.is_json:
                return self._other_body(parsed, cost)
            raise Problem(422, "payload_invalid", "the payload must be a JSON object")
        try:
            return self._run_hooks(parsed, payload, cost)
        except JsonDataException as fault:
            raise _invalid(fault) from None

    def _weighed_as_python(self, parsed: ParsedRequest, rule: WorkloadRule) -> tuple[float, None]:
        """Lone surrogates and NaN are no JSON, but model servers in Python read them. User code never gets them."""
        try:
            payload = parse_answer(bytes(parsed.body))
        except NotJson as fault:
            raise Problem(422, "payload_invalid", f"the payload is not valid JSON: {fault}") from None
        # Send what the rule has read: of a duplicate key, the model server might read the other value.
        parsed.body = json.dumps(payload).encode()
        return rule.workload(payload if isinstance(payload, dict) else None, len(parsed.body)), None

    def _other_body(self, parsed: ParsedRequest, cost: float) -> tuple[float, JsonObject | None]:
        """The workload of a body that is not JSON: by the hooks that can read it, by the rule, or the ticket's cost.

        Whether it is JSON does not depend on the content type: model servers may ignore the type, and the request would
        then bypass the hooks.
        """
        hooks_read = self._changes_payload or self.config.remote_function is not None
        if self._rule is not None and not hooks_read:
            return self._rule.workload(None, len(parsed.body)), None
        try:
            payload = multipart.decode(parsed.body, parsed.content_type)
        except multipart.FormError as fault:
            raise Problem(422, "payload_invalid", str(fault)) from None
        if payload is None and not hooks_read:
            return cost, None
        if payload is None and (self.config.payload_class is None or self.config.request_parser is not None):
            message = "this route takes a JSON object or a multipart form: send its Content-Type"
            raise Problem(415, "payload_not_json", message)
        body = Body(bytes(parsed.body), parsed.content_type.decode("latin-1")) if payload is None else None
        try:
            return self._run_hooks(parsed, body if payload is None else payload, cost)
        except JsonDataException as fault:
            raise _invalid(fault) from None
        except Exception as fault:  # noqa: BLE001 - user code that expects JSON
            log.warning("form_not_read", route=self.config.route, error=repr(fault)[:200])
            message = (
                "this route cannot read such a body: send a JSON object with Content-Type: application/json"
            )
            raise Problem(415, "payload_not_json", message) from None

    def _run_hooks(self, parsed: ParsedRequest, payload: Any, cost: float) -> tuple[float, JsonObject | None]:
        """`payload`: a JSON object, a Form, or, for a payload class, a Body."""
        config = self.config
        if config.request_parser is not None:
            is_form = isinstance(payload, Form)
            payload = config.request_parser(payload)
            if is_form and isinstance(payload, dict):
                payload = Form(payload)
        calculate: Any = config.workload_calculator
        body_bytes = len(parsed.body)
        if config.payload_class is not None:
            typed = config.payload_class.from_json_msg(payload)
            payload = typed.generate_payload_json()
            calculate = calculate or (lambda _: typed.count_workload())
            if (fields := multipart_fields(typed)) is not None:
                parsed.body, parsed.content_type = multipart.encode(fields)
                return self.workload(payload, cost, calculate, body_bytes=body_bytes), payload
        # Send what the hooks have read: of a duplicate key, the model server might read the other value.
        if config.remote_function is None:
            parsed.body, parsed.content_type = encoded(payload)
        workload = self.workload(payload, cost, calculate, body_bytes=body_bytes)
        return workload, None if isinstance(payload, Body) else payload

    def workload(
        self, payload: JsonObject | Body, cost: float, calculate: Any = None, *, body_bytes: int = 0
    ) -> float:
        """The workload of a payload. Falls back to the cost if the calculator fails or returns no valid number."""
        calculate = calculate or self.config.workload_calculator
        if self._rule is not None and calculate is self._rule:
            # The engine sees only the size of a form or a binary body.
            known = None if isinstance(payload, Form | Body) else payload
            return self._rule.workload(known, body_bytes)
        if calculate is None or (isinstance(payload, Body) and self.config.payload_class is None):
            return cost
        try:
            value = calculate(payload)
        except JsonDataException:
            raise
        except Exception as fault:  # noqa: BLE001 - user code; its error must not refuse requests
            log.warning("workload_calculator_failed", route=self.config.route, error=repr(fault)[:200])
            return cost
        workload = parse_workload(value)
        if workload is None:
            log.warning("workload_not_a_number", route=self.config.route, value=repr(value)[:80], used=cost)
            return cost
        return workload

    def upstream_request(self, request: Request, parsed: ParsedRequest) -> tuple[bytes, ...]:
        """The request to the model server, as bytes."""
        lines = [request.method, b" ", request.path]
        if request.query:
            query = without_key(request.query)
            if query:
                lines += (b"?", query)
        lines += (b" HTTP/1.1\r\nhost: ", self._authority, b"\r\n")
        named: frozenset[bytes] = frozenset()
        dropped = _NOT_FORWARDED if not request.websocket else _NOT_FORWARDED_BY_WEBSOCKET
        for name, value in request.headers:
            if name not in dropped:
                lines += (name, b": ", value, b"\r\n")
            elif name == b"connection" and value not in _PLAIN_CONNECTION:
                named = named_by_connection(request.headers)
        if named:
            lines = _without(lines, named)
        if not parsed.has_body:
            lines.append(self._handshake(request) if request.websocket else b"\r\n")
            return (b"".join(lines),)
        body = parsed.body
        lines += (b"content-type: ", parsed.content_type, b"\r\ncontent-length: %d\r\n\r\n" % len(body))
        if len(body) <= _JOIN_BYTES_MAX:
            lines.append(bytes(body))
            return (b"".join(lines),)
        return b"".join(lines), bytes(body)

    def _handshake(self, request: Request) -> bytes:
        """The last header fields of a WebSocket handshake."""
        lines = [b"connection: Upgrade\r\nupgrade: websocket\r\n"]
        protocols, _ = request_envelope.websocket_protocols(request)
        if protocols:
            lines += (b"sec-websocket-protocol: ", ", ".join(protocols).encode("latin-1"), b"\r\n")
        return b"".join([*lines, b"\r\n"])


class RouteIndex:
    """Finds the route of a request. Most requests are POST to an exact path, found by one lookup."""

    def __init__(self, routes: Iterable[PreparedRoute]) -> None:
        self._table = RouteTable(routes)
        self.exact = {
            route.config.route.encode(): route
            for route in self._table.routes
            if route.pattern.is_exact and not route.websocket and "POST" in route.methods
        }
        """Routes that take POST at one path, by that path."""
        self.paths = {route.config.route.encode() for route in self._table.routes if route.pattern.is_exact}
        """Paths of routes without variables. They win over the worker's own."""

    def __repr__(self) -> str:
        return f"<RouteIndex {self._table!r}>"

    def __iter__(self) -> Iterator[PreparedRoute]:
        return iter(self._table.routes)

    def find(self, request: Request) -> PreparedRoute | None:
        """The route of the request."""
        if request.method == b"POST" and (route := self.exact.get(request.path)) is not None:
            return route
        if request.path.startswith(_OWN_PREFIXES):
            return None
        method, path = request.method.decode("latin-1"), request.path.decode("latin-1")
        return self._table.find(method, path, websocket=request.websocket)

    def refusal(self, request: Request) -> Problem:
        """The problem of a request without a route."""
        path = request.path.decode("latin-1")
        allowed = () if request.path.startswith(_OWN_PREFIXES) else self._table.allowed(path)
        if not allowed:
            return Problem(404, "route_unknown", "this worker serves no such path")
        if request.websocket:
            message = "this path takes no WebSocket; send an HTTP request, without Upgrade"
            return Problem(400, "upgrade_unsupported", message)
        method = request.method.decode("latin-1")
        if method in allowed:
            message = "this path takes a WebSocket handshake: Upgrade, and one Sec-WebSocket-Key"
            return Problem(426, "websocket_expected", message, headers={"Upgrade": "websocket"})
        return method_problem(*allowed)


def method_problem(*allowed: str) -> Problem:
    """The problem of a method that the path does not take."""
    names = ", ".join(allowed)
    return Problem(405, "method_wrong", f"expected method {names}", headers={"Allow": names})


def encoded(payload: JsonObject | Body) -> tuple[bytes, bytes]:
    """The body in the payload's form, and its content type."""
    if isinstance(payload, Body):
        return payload.content, payload.content_type.encode("latin-1")
    if isinstance(payload, Form):
        return multipart.encode(payload)
    return msgspec.json.encode(payload), b"application/json"


def _invalid(fault: JsonDataException) -> Problem:
    return Problem(422, "payload_invalid", _sentence(fault.message))


def multipart_fields(typed: Any) -> dict[str, Any] | None:
    """The form fields of a payload. None: it is sent as JSON."""
    generate = getattr(typed, "generate_payload_multipart", None)
    return None if generate is None else generate()


def _without(lines: list[bytes], named: frozenset[bytes]) -> list[bytes]:
    """Remove the header lines (name, `: `, value, line end) that the Connection header names."""
    kept: list[bytes] = []
    skip = 0
    for index, part in enumerate(lines):
        if skip:
            skip -= 1
        elif part in named and index + 1 < len(lines) and lines[index + 1] == b": ":
            skip = 3
        else:
            kept.append(part)
    return kept


def without_key(query: bytes) -> bytes:
    """The query without `api_key`: official clients send the endpoint's key there, and the model must not see it."""
    if b"api_key" not in query:
        return query
    return b"&".join(part for part in query.split(b"&") if not part.startswith(b"api_key="))


def _sentence(message: Any) -> str:
    if isinstance(message, dict):
        return "; ".join(f"{key}: {value}" for key, value in message.items())
    return str(message)
