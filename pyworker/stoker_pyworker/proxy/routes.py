"""A configured route, prepared: what its hooks need of a payload, and the request to the model as bytes."""

from typing import Any

import msgspec
import structlog

from stoker_pyworker.config import HandlerConfig, JsonDataException, JsonObject, sane_workload
from stoker_pyworker.http.messages import HOP_BY_HOP, named_by_connection
from stoker_pyworker.http.request import Request
from stoker_pyworker.proxy import forms, request_envelope
from stoker_pyworker.proxy.request_envelope import AUTH_HEADER, SESSION_HEADER, Asked
from stoker_wire.problem import Problem

log = structlog.get_logger(room="routes")

_NOT_FOR_THE_MODEL = HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"content-type",
    b"authorization",
    b"cookie",
    b"expect",
    AUTH_HEADER,
    SESSION_HEADER,
}
"""Hop-by-hop, replaced by ours, or a credential of the client's that the model has no business with."""

_PLAIN_CONNECTION = frozenset({b"keep-alive", b"close", b"Keep-Alive"})
_JOIN_BYTES_MAX = 256 * 1024
"""A small body is sent with its head in one write; a large one is not copied for that."""


class PreparedRoute:
    """One `HandlerConfig`, ready for requests."""

    def __init__(self, config: HandlerConfig, authority: bytes) -> None:
        self.config = config
        self.path = config.route.encode()
        self._authority = authority
        self.parallel = config.allow_parallel_requests
        self.max_queue_time = config.max_queue_time
        self.awaits_hook = config.response_generator is not None or config.remote_function is not None
        changes = config.request_parser is not None or config.payload_class is not None
        self._changes_payload = changes
        self._reads_payload = (
            changes or config.workload_calculator is not None or config.remote_function is not None
        )

    def prepare(self, asked: Asked, cost: float) -> tuple[float, JsonObject | None]:
        """The request's workload, and its payload where a hook needed it decoded; `asked.body` follows the hooks.

        Raises:
            Problem: 422 when the payload is not what the hooks take.
        """
        if not self._reads_payload:
            return cost, None
        try:
            payload = request_envelope.decoded(asked.body)
        except Problem:
            if not asked.is_json:
                return self._of_a_raw_body(cost)
            raise
        if not isinstance(payload, dict):
            if not asked.is_json:
                return self._of_a_raw_body(cost)
            raise Problem(422, "payload_invalid", "the payload must be a JSON object")
        try:
            return self._through_hooks(asked, payload, cost)
        except JsonDataException as fault:
            raise Problem(422, "payload_invalid", _sentence(fault.message)) from None

    def _of_a_raw_body(self, cost: float) -> tuple[float, None]:
        """A body that is no JSON weighs what its ticket says. One that only claims to be none is read all the same: model
        servers may not look at the content type either, and the hooks would be passed by."""
        if self._changes_payload or self.config.remote_function is not None:
            message = "this route takes a JSON object: send Content-Type: application/json"
            raise Problem(415, "payload_not_json", message)
        return cost, None

    def _through_hooks(self, asked: Asked, payload: JsonObject, cost: float) -> tuple[float, JsonObject]:
        config = self.config
        if config.request_parser is not None:
            payload = config.request_parser(payload)
        calculate: Any = config.workload_calculator
        if config.payload_class is not None:
            typed = config.payload_class.from_json_msg(payload)
            payload = typed.generate_payload_json()
            calculate = calculate or (lambda _: typed.count_workload())
            if (fields := form_of(typed)) is not None:
                asked.body, asked.content_type = forms.encode(fields)
                return self.workload(payload, cost, calculate), payload
        # What was weighed is what is sent: of a key that comes twice, the model server might read the other one.
        if config.remote_function is None:
            asked.body = msgspec.json.encode(payload)
        return self.workload(payload, cost, calculate), payload

    def workload(self, payload: JsonObject, cost: float, calculate: Any = None) -> float:
        """What the payload weighs; a calculator that fails or returns no sane number is overruled by the cost."""
        calculate = calculate or self.config.workload_calculator
        if calculate is None:
            return cost
        try:
            value = calculate(payload)
        except JsonDataException:
            raise
        except Exception as fault:  # noqa: BLE001 - the user's code; a fault in it must not refuse requests
            log.warning("workload_calculator_failed", route=self.config.route, error=repr(fault)[:200])
            return cost
        workload = sane_workload(value)
        if workload is None:
            log.warning("workload_not_a_number", route=self.config.route, value=repr(value)[:80], used=cost)
            return cost
        return workload

    def to_model(self, request: Request, asked: Asked) -> tuple[bytes, ...]:
        """The request as the model server gets it."""
        lines = [b"POST ", self.path]
        if request.query:
            query = without_key(request.query)
            if query:
                lines += (b"?", query)
        lines += (b" HTTP/1.1\r\nhost: ", self._authority, b"\r\n")
        named: frozenset[bytes] = frozenset()
        for name, value in request.headers:
            if name not in _NOT_FOR_THE_MODEL:
                lines += (name, b": ", value, b"\r\n")
            elif name == b"connection" and value not in _PLAIN_CONNECTION:
                named = named_by_connection(request.headers)
        if named:
            lines = _without(lines, named)
        body = asked.body
        lines += (b"content-type: ", asked.content_type, b"\r\ncontent-length: %d\r\n\r\n" % len(body))
        if len(body) <= _JOIN_BYTES_MAX:
            lines.append(bytes(body))
            return (b"".join(lines),)
        return b"".join(lines), bytes(body)


def form_of(typed: Any) -> dict[str, Any] | None:
    """The form fields that a payload names; None: it goes to the model as JSON."""
    generate = getattr(typed, "generate_payload_multipart", None)
    return None if generate is None else generate()


def _without(lines: list[bytes], named: frozenset[bytes]) -> list[bytes]:
    """Drop the header lines (name, `: `, value, line end) whose name the Connection header listed."""
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
    """The query without `api_key`: official clients put the endpoint's key there, which is not for the model."""
    if b"api_key" not in query:
        return query
    return b"&".join(part for part in query.split(b"&") if not part.startswith(b"api_key="))


def _sentence(message: Any) -> str:
    if isinstance(message, dict):
        return "; ".join(f"{key}: {value}" for key, value in message.items())
    return str(message)
