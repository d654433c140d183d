"""Spans of one process. Importing it needs the extra `otel`.

Spans carry names of endpoints, ids, paths without their query, and outcomes; no header, body, ticket or error text.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points, version
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode

from stoker_wire.errors.problem import Problem
from stoker_wire.tracing.start import TracingUnavailable

_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_BY_PROTOCOL = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_GROUP = "opentelemetry_traces_exporter"
_NS = 1_000_000_000
CLOSE_SECONDS = 2.0
"""For the last spans. A collector that does not answer holds up no process for longer."""

Attributes = Mapping[str, str | int | float | bool]


class _Headers(Getter[Any]):  # type: ignore[misc, unused-ignore] # without the extra it is not known
    """Reads header fields of a multidict, or of `stoker_wire.http1`.

    A `traceparent` that came twice is invalid, as W3C Trace Context says.
    """

    def get(self, carrier: Any, key: str) -> list[str] | None:
        if isinstance(carrier, list):
            wanted = key.lower().encode()
            values = [value.decode("latin-1") for name, value in carrier if name == wanted]
        else:
            values = carrier.getall(key, [])
        return None if not values or (key == "traceparent" and len(values) > 1) else values

    def keys(self, carrier: Any) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier] if isinstance(carrier, list) else list(carrier)


_HEADERS = _Headers()


class Tracing:
    """Makes the spans of one process and exports them in the background."""

    def __init__(self, provider: TracerProvider, exporter: SpanExporter) -> None:
        self.provider = provider
        self._exporter = exporter
        self._closed = False
        self._tracer = provider.get_tracer("stoker", version("stoker-wire"))

    @classmethod
    def start(cls, service: str) -> Tracing:
        """Tracing with the exporter, sampler and limits of the environment.

        Raises:
            TracingUnavailable: a variable cannot be used.
        """
        try:
            named = Resource({"service.name": service, "service.version": version("stoker-wire")})
            resource = named.merge(OTELResourceDetector().detect())
            provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            exporter = _exporter(os.environ)
            provider.add_span_processor(BatchSpanProcessor(exporter))
        except TracingUnavailable:
            raise
        except Exception as fault:  # noqa: BLE001 - whatever the libraries make of a variable
            raise TracingUnavailable(
                f"the OTEL_… variables cannot be used: {type(fault).__name__}: {fault}"
            ) from None
        # An exporter warns at each of its attempts, and says at the end that it failed.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
        tracing = cls(provider, exporter)
        atexit.register(tracing.close)
        return tracing

    def parent_of(self, headers: Any) -> Context:
        """The context that header fields name. Invalid fields are ignored."""
        return propagate.extract(headers, context=Context(), getter=_HEADERS)

    def begin(
        self,
        name: str,
        parent: Context,
        attributes: Attributes,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        at: float | None = None,
    ) -> Span:
        """A span that has to be ended; `at` is its start, Unix seconds."""
        started = None if at is None else int(at * _NS)
        return self._tracer.start_span(name, parent, kind, dict(attributes), start_time=started)

    def record(self, name: str, parent: Span, began: float, ended: float, attributes: Attributes) -> None:
        """A span that is over, Unix seconds."""
        span = self.begin(name, trace.set_span_in_context(parent, Context()), attributes, at=began)
        span.end(int(max(began, ended) * _NS))

    def serve(self, name: str, headers: Any, attributes: Attributes) -> Span:
        """The span of a request that came with these header fields; it has to be ended."""
        return self.begin(name, self.parent_of(headers), attributes, kind=SpanKind.SERVER)

    @contextmanager
    def serving(self, name: str, headers: Any, attributes: Attributes) -> Iterator[Span]:
        """The span of a request that is being served. A fault makes it an error, without the fault's text."""
        span = self.serve(name, headers, attributes)
        try:
            yield span
        except BaseException as fault:
            self.fail(span, fault.code if isinstance(fault, Problem) else type(fault).__name__)
            raise
        finally:
            span.end()

    @staticmethod
    def fail(span: Span, code: str) -> None:
        """Mark the span as an error: a problem's code, or the name of an exception."""
        span.set_attribute("error.type", code)
        span.set_status(StatusCode.ERROR, code)

    @staticmethod
    def with_parent(headers: Iterable[tuple[bytes, bytes]], span: Span) -> list[tuple[bytes, bytes]]:
        """Header fields for a peer whose span becomes a child of this one; baggage stays as it came."""
        fields: dict[str, str] = {}
        propagate.inject(fields, context=trace.set_span_in_context(span, Context()))
        replaced = {name.lower().encode() for name in propagate.get_global_textmap().fields} - {b"baggage"}
        kept = [each for each in headers if each[0] not in replaced]
        return [*kept, *((name.lower().encode(), value.encode()) for name, value in fields.items())]

    def use_for_program(self) -> None:
        """Make it the program's own, which libraries use that only know OpenTelemetry's API."""
        trace.set_tracer_provider(self.provider)

    def close(self) -> None:
        """Export what is left, within CLOSE_SECONDS. The end of the program does it too; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        work = threading.Thread(target=self.provider.shutdown, name="last spans", daemon=True)
        try:
            work.start()
        except RuntimeError:  # some Pythons start no thread at their end
            self._exporter.shutdown()
            return
        work.join(CLOSE_SECONDS)
        self._exporter.shutdown()


def _exporter(variables: Mapping[str, str]) -> Any:
    name = variables.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if name == "otlp":
        protocol = next((variables[each] for each in _PROTOCOLS if variables.get(each)), "http/protobuf")
        if protocol not in _BY_PROTOCOL:
            raise TracingUnavailable(
                f"OTEL_EXPORTER_OTLP_PROTOCOL: expected {' or '.join(_BY_PROTOCOL)}, received {protocol!r:.40}"
            )
        name = _BY_PROTOCOL[protocol]
    if name == "otlp_proto_http":
        _check_addresses(variables)
    found = list(entry_points(group=_GROUP, name=name))
    if not found:
        known = sorted({each.name for each in entry_points(group=_GROUP)})
        raise TracingUnavailable(
            f"no package for the exporter {name!r:.40} of traces is installed, only for {', '.join(known) or 'none'}; "
            "install its package, as opentelemetry-exporter-otlp-proto-grpc for OTEL_EXPORTER_OTLP_PROTOCOL=grpc"
        )
    return found[0].load()()


def _check_addresses(variables: Mapping[str, str]) -> None:
    for name in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        address = variables.get(name, "").strip()
        if address and not address.lower().startswith(("http://", "https://")):
            raise TracingUnavailable(
                f"{name}: expected http://… or https://…, received another kind of address"
            )
