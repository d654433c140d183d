"""The engine's metrics as protobuf messages, the only format that Prometheus reads native histograms from.

A scrape is a sequence of `io.prometheus.client.MetricFamily`, each after its length. The messages are written directly:
a thousand endpoints have tens of thousands of samples.

Source: https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto
"""

import struct
from collections.abc import Iterable, Iterator, Sequence

from engine.engine import Engine
from engine.metrics.exposition import PROCESS
from engine.metrics.families import HISTOGRAMS, OF_ENDPOINTS, OF_ENGINE, Family, HistogramFamily
from engine.request_stats import BUCKET_SECONDS, NATIVE_SCHEMA, NATIVE_ZERO_SECONDS, Histogram
from engine.routing.endpoint import Endpoint

_TYPES = {"counter": 0, "gauge": 1, "histogram": 4}
_OF_KIND = {"counter": 3, "gauge": 2}
"""Field of `Metric`, whose first field is the value."""
_ENDS = (*BUCKET_SECONDS, float("inf"))
_pack_double = struct.Struct("<d").pack


def parts(engine: Engine, endpoints: Sequence[Endpoint]) -> Iterator[bytes]:
    """The messages, in parts after which other tasks may run."""
    yield b"".join(_family(family, [(b"", engine)]) for family in OF_ENGINE)
    labelled = [(_label("endpoint", endpoint.name), endpoint) for endpoint in endpoints]
    for family in OF_ENDPOINTS:
        yield _family(family, labelled)
    for histogram in HISTOGRAMS:
        metrics: list[bytes] = []
        for first in range(0, len(labelled), 200):
            metrics += _histograms(histogram, labelled[first : first + 200])
            yield b""
        yield _message(histogram.name, "histogram", histogram.about, metrics) if metrics else b""
    for metric in PROCESS.collect():
        samples = (_metric(metric.type, b"", sample.value) for sample in metric.samples)
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        yield _message(name, metric.type, metric.documentation, samples)


def _family(
    family: Family[Engine] | Family[Endpoint], subjects: Iterable[tuple[bytes, Engine | Endpoint]]
) -> bytes:
    metrics = [
        _metric(
            family.kind,
            own + b"".join(_label(*pair) for pair in zip(family.labels, values, strict=True)),
            value,
        )
        for own, subject in subjects
        for values, value in family.read(subject)  # type: ignore[arg-type] # the subject is of the family's type
    ]
    return _message(family.sample_name, family.kind, family.about, metrics) if metrics else b""


def _message(name: str, kind: str, about: str, metrics: Iterable[bytes]) -> bytes:
    body = _text(1, name) + _text(2, about) + _integer(3, _TYPES[kind])
    body += b"".join(_bytes(4, metric) for metric in metrics)
    return _varint(len(body)) + body


def _metric(kind: str, labels: bytes, value: float) -> bytes:
    return labels + _bytes(_OF_KIND[kind], _double(1, value))


def _histograms(family: HistogramFamily, subjects: Iterable[tuple[bytes, Endpoint]]) -> Iterator[bytes]:
    for own, endpoint in subjects:
        for value, histogram in family.read(endpoint):
            if (written := histogram.written.get("protobuf")) is None:
                counts = _integer(1, sum(histogram.counts)) + _double(2, histogram.seconds)
                written = _bytes(7, counts + _classic(histogram) + _native(histogram))
                histogram.written["protobuf"] = written
            yield own + b"".join(_label(name, value) for name in family.labels) + written


def _classic(histogram: Histogram) -> bytes:
    total, made = 0, []
    for bucket, (count, end) in enumerate(zip(histogram.counts, _ENDS, strict=True)):
        total += count
        body = _integer(1, total) + _double(2, end)
        if (last := histogram.last.get(bucket)) is not None:
            body += _bytes(3, _label("request_id", str(last[0])) + _double(2, last[1]))
        made.append(_bytes(3, body))
    return b"".join(made)


def _native(histogram: Histogram) -> bytes:
    """The buckets that are not empty: spans of neighbours, and each count as the difference to the one before."""
    spans: list[list[int]] = []
    deltas = []
    next_index = before = 0
    for index in sorted(histogram.native):
        if not spans or index != next_index:
            spans.append([index - next_index, 0])
        spans[-1][1] += 1
        next_index = index + 1
        deltas.append(histogram.native[index] - before)
        before = histogram.native[index]
    if not spans:
        spans.append([0, 0])  # without a span, Prometheus takes an empty histogram for a classic one
    made = [
        _integer(5, _zigzag(NATIVE_SCHEMA)),
        _double(6, NATIVE_ZERO_SECONDS),
        _integer(7, histogram.native_zero),
    ]
    made += [_bytes(12, _integer(1, _zigzag(offset)) + _integer(2, length)) for offset, length in spans]
    made += [_integer(13, _zigzag(delta)) for delta in deltas]
    return b"".join(made)


def _label(name: str, value: str) -> bytes:
    """A label of a metric or of an exemplar: the first field of both."""
    return _bytes(1, _text(1, name) + _text(2, value))


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode("utf-8", "replace"))


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _double(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + _pack_double(value)


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _varint(value: int) -> bytes:
    if value < 128:
        return _SMALL[value]
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    made.append(value)
    return bytes(made)


_SMALL = [bytes((value,)) for value in range(128)]
