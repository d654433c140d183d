"""When traces are asked for, and what a process says that cannot make them."""

import sys
from collections.abc import Iterator

import pytest

pytest.importorskip("opentelemetry.sdk", reason="this environment is older than requirements/dev.txt")

from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

from stoker_wire.tracing.start import TracingUnavailable, asking_variable, start_tracing

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({}, ""),
        ({"OTEL_SERVICE_NAME": "mine", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x"}, ""),
        (ENDPOINT, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER"),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, ""),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "TRUE"}, ""),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "no"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "  "}, ""),
    ],
)
def test_traces_are_off_until_a_standard_variable_asks_for_them(
    variables: dict[str, str], asked: str
) -> None:
    assert asking_variable(variables) == asked


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in ENDPOINT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delitem(sys.modules, "stoker_wire.tracing.tracer", raising=False)
    return monkeypatch


def test_a_missing_extra_is_one_sentence_that_names_it(asking: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        asking.delitem(sys.modules, name)
    asking.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(TracingUnavailable) as told:
        start_tracing("stoker-engine", package="stoker-controller")
    assert str(told.value) == (
        "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, but opentelemetry is not installed; "
        'run pip install "stoker-controller[otel]", or set OTEL_SDK_DISABLED=true'
    )


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "no package for the exporter 'zipkin'"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "carrier-pigeon"}, "expected http/protobuf or grpc, received"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "user:hidden@host:4318"}, "expected http://… or https://…"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "1", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "512"}, "cannot be used"),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "-7"}, "cannot be used"),
    ],
)
def test_a_variable_that_cannot_be_used_is_one_sentence(
    asking: pytest.MonkeyPatch, variables: dict[str, str], told: str
) -> None:
    for name, value in variables.items():
        asking.setenv(name, value)
    with pytest.raises(TracingUnavailable) as fault:
        start_tracing("stoker-engine", package="stoker-controller")
    assert told in str(fault.value)
    assert "hidden" not in str(fault.value)
    assert "\n" not in str(fault.value)


class OneField(TextMapPropagator):
    """Another format than W3C Trace Context, with a field in mixed case."""

    @property
    def fields(self) -> set[str]:
        return {"X-Trace-Id", "baggage"}

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        (found,) = getter.get(carrier, "X-Trace-Id") or [""]
        known = SpanContext(int(found or "0", 16), 7, is_remote=True, trace_flags=TraceFlags(1))
        return set_span_in_context(NonRecordingSpan(known), context)

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        trace_id = get_current_span(context).get_span_context().trace_id
        setter.set(carrier, "X-Trace-Id", f"{trace_id:x}")


@pytest.fixture
def one_field() -> Iterator[None]:
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(OneField())
    yield
    propagate.set_global_textmap(before)


@pytest.mark.usefixtures("asking", "one_field")
def test_a_peer_gets_the_fields_of_the_configured_format_once() -> None:
    tracing = start_tracing("stoker-engine", package="stoker-controller")
    assert tracing is not None
    received = [(b"x-trace-id", b"abc"), (b"baggage", b"user=alice"), (b"accept", b"*/*")]
    span = tracing.serve("stoker.route", received, {})
    assert span.get_span_context().trace_id == 0xABC
    passed = tracing.with_parent(received, span)
    assert sorted(passed) == sorted(received)
    other = tracing.with_parent([(b"x-trace-id", b"1"), (b"accept", b"*/*")], span)
    assert other == [(b"accept", b"*/*"), (b"x-trace-id", b"abc")]
    tracing.close()
