"""Prometheus text of the engine's metrics. A thousand endpoints have 70,000 lines, so lines are made directly.

Source of the formats: https://prometheus.io/docs/instrumenting/exposition_formats/ and the OpenMetrics specification.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector

from engine.engine import Engine
from engine.metrics.families import HISTOGRAMS, OF_ENDPOINTS, OF_ENGINE, Family, HistogramFamily
from engine.request_stats import BUCKET_SECONDS, Histogram
from engine.routing.endpoint import Endpoint
from webserver.metrics_page import END, OPEN_METRICS, text_of

_BOUNDS = (*(f"{bound:g}" if bound != int(bound) else f"{bound:.1f}" for bound in BUCKET_SECONDS), "+Inf")
PROCESS = CollectorRegistry(auto_describe=False)
ProcessCollector(registry=PROCESS)


def parts(engine: Engine, endpoints: Sequence[Endpoint], *, open_metrics: bool) -> Iterator[str]:
    """The text, in parts after which other tasks may run.

    Args:
        open_metrics: the OpenMetrics format, whose histograms name the last request of each bucket.
    """
    yield "".join(_family(family, [("", engine)], open_metrics=open_metrics) for family in OF_ENGINE)
    labelled = [(f'endpoint="{_escape(endpoint.name)}"', endpoint) for endpoint in endpoints]
    for family in OF_ENDPOINTS:
        yield _family(family, labelled, open_metrics=open_metrics)
    for histogram in HISTOGRAMS:
        head = _head(histogram.name, "histogram", histogram.about)
        for first in range(0, len(labelled), 200):
            text = "".join(_histogram(histogram, labelled[first : first + 200], open_metrics=open_metrics))
            yield head + text if text else ""
            head = "" if text else head
    yield text_of(PROCESS, in_open_metrics=open_metrics)
    if open_metrics:
        yield END


def _head(name: str, kind: str, about: str) -> str:
    return f"# HELP {name} {about}\n# TYPE {name} {kind}\n"


def _family(
    family: Family[Engine] | Family[Endpoint], subjects: Iterable[tuple[str, object]], *, open_metrics: bool
) -> str:
    name = family.sample_name
    lines = [_head(family.name if open_metrics else name, family.kind, family.about)]
    for label, subject in subjects:
        for values, value in family.read(subject):  # type: ignore[arg-type] # the subject is of the family's type
            pairs = [label] if label else []
            pairs += [f'{key}="{_escape(text)}"' for key, text in zip(family.labels, values, strict=True)]
            lines.append(
                f"{name}{{{','.join(pairs)}}} {_number(value)}\n" if pairs else f"{name} {_number(value)}\n"
            )
    return "".join(lines) if len(lines) > 1 else ""  # a name without a sample says nothing


def _histogram(
    family: HistogramFamily, subjects: Iterable[tuple[str, Endpoint]], *, open_metrics: bool
) -> Iterator[str]:
    form = OPEN_METRICS if open_metrics else "text"
    for own, endpoint in subjects:
        for value, histogram in family.read(endpoint):
            if (text := histogram.written.get(form + own)) is None:
                label = own + "".join(f',{name}="{_escape(value)}"' for name in family.labels)
                text = histogram.written[form + own] = _written(family.name, label, histogram, open_metrics)
            yield text


def _written(name: str, label: str, histogram: Histogram, open_metrics: bool) -> str:
    start, lines = f'{name}_bucket{{{label},le="', []
    total = 0
    for bucket, (count, bound) in enumerate(zip(histogram.counts, _BOUNDS, strict=True)):
        total += count
        exemplar = _exemplar(histogram, bucket) if open_metrics else ""
        lines.append(f'{start}{bound}"}} {total}{exemplar}\n')
    lines.append(f"{name}_count{{{label}}} {total}\n{name}_sum{{{label}}} {_number(histogram.seconds)}\n")
    return "".join(lines)


def _exemplar(histogram: Histogram, bucket: int) -> str:
    last = histogram.last.get(bucket)
    return "" if last is None else f' # {{request_id="{last[0]}"}} {_number(last[1])}'


def _number(value: float) -> str:
    if value == math.inf:
        return "+Inf"
    return "NaN" if math.isnan(value) else str(value)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
