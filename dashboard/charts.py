"""Charts over time as SVG. Pure: samples in, markup out; colours and fonts come from the style sheet.

The drawing is stretched to the width of the page, so labels are HTML beside it and not text inside it.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup

from dashboard.samples import Sample
from dashboard.text import UNKNOWN

WIDTH, HEIGHT = 1000, 100
"""Units of the drawing, not pixels."""
POINTS_MAX = 240
"""Points drawn per series. Doubled: sharper charts of a day, and twice the bytes per update."""
_TICKS = 3


@dataclass(frozen=True, slots=True)
class Series:
    """One curve: a name, a style class and a value per sample."""

    name: str
    style: str
    value: Callable[[Sample], float]
    area: bool = False


@dataclass(frozen=True, slots=True)
class Marker:
    """A decision on the time axis; `target` is the id of its row on the page."""

    at: float
    text: str
    target: str
    style: str = "decision"


def chart(
    title: str,
    unit: str,
    samples: Sequence[Sample],
    series: Sequence[Series],
    *,
    start: float,
    end: float,
    markers: Sequence[Marker] = (),
    stacked: bool = False,
) -> Markup:
    """A figure with curves from `start` to `end` (Unix seconds).

    Args:
        stacked: each curve is drawn on top of the one before.
    """
    shown = thinned(samples, POINTS_MAX)
    values = [[max(0.0, one.value(sample)) for sample in shown] for one in series]
    drawn = _stacked(values) if stacked else values
    top = nice_top(max((value for row in drawn for value in row), default=0.0))
    xs = [_x(sample.at, start, end) for sample in shown]
    curves = [
        _curve(xs, row, below if stacked else None, top, one)
        for one, row, below in zip(series, drawn, [None, *drawn[:-1]], strict=True)
    ]
    if stacked:
        curves.reverse()
    body = Markup("").join([_grid(), *curves, *(_marker(marker, start, end) for marker in markers)])
    labels = Markup("").join(
        Markup("<span>{}</span>").format(_short(top * part / _TICKS)) for part in range(_TICKS, -1, -1)
    )
    legend = Markup("").join(
        Markup('<li class="{}"><span class="swatch" aria-hidden="true"></span>{} <b>{}</b></li>').format(
            one.style, one.name, _short(row[-1]) if row else UNKNOWN
        )
        for one, row in zip(series, values, strict=True)
    )
    spoken = ", ".join(
        f"{one.name} {_short(row[-1])}" for one, row in zip(series, values, strict=True) if row
    )
    data = {
        "at": [round(sample.at, 1) for sample in shown],
        "x": [round(x / WIDTH, 4) for x in xs],
        "names": [one.name for one in series],
        "values": [[float(f"{value:.4g}") for value in row] for row in values],
        "unit": unit,
    }
    return Markup(
        '<figure class="chart"><figcaption>{} <small>{}</small></figcaption>'
        '<ul class="legend">{}</ul><div class="plot" data-series="{}"><div class="y" aria-hidden="true">{}</div>'
        '<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg></div>'
        '<div class="x" aria-hidden="true"><span>{}</span><span>{}</span><span>{}</span></div></figure>'
    ).format(
        title,
        unit,
        legend,
        json.dumps(data, separators=(",", ":")),
        labels,
        WIDTH,
        HEIGHT,
        f"{title} in {unit}, now: {spoken or 'no data yet'}",
        body,
        *(_clock(start + (end - start) * part / 2, end - start) for part in range(3)),
    )


def spark(samples: Sequence[Sample], value: Callable[[Sample], float], *, start: float, end: float) -> Markup:
    """A small area without axes, for a row of a table."""
    shown = thinned(samples, 60)
    if len(shown) < 2:
        return Markup('<svg class="spark" viewBox="0 0 100 20" aria-hidden="true"></svg>')
    row = [max(0.0, value(sample)) for sample in shown]
    top = nice_top(max(row))
    points = " ".join(
        f"{_x(sample.at, start, end) / 10:.1f},{20 - 20 * each / top:.1f}"
        for sample, each in zip(shown, row, strict=True)
    )
    return Markup(
        '<svg class="spark" viewBox="0 0 100 20" preserveAspectRatio="none" aria-hidden="true">'
        '<polyline points="{}"/></svg>'
    ).format(points)


def thinned(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most `most` samples with the highest load or queue of each stretch kept, and always the last one."""
    if len(samples) <= most:
        return list(samples)
    step = math.ceil(len(samples) / (most - 1))
    kept = [
        max(samples[first : first + step], key=lambda sample: (sample.queue, sample.load))
        for first in range(0, len(samples) - 1, step)
    ]
    return [*kept, samples[-1]]


def nice_top(value: float) -> float:
    """The smallest top of the axis whose thirds are short numbers and which is not below the value; 3 for zero."""
    if value <= 0 or not math.isfinite(value):
        return 3.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(unit * step for step in (1.2, 1.5, 2.1, 3.0, 4.5, 6.0, 9.0, 12.0) if unit * step >= value)


def _stacked(values: list[list[float]]) -> list[list[float]]:
    rows: list[list[float]] = []
    for row in values:
        rows.append([a + b for a, b in zip(rows[-1], row, strict=True)] if rows else row)
    return rows


def _x(at: float, start: float, end: float) -> float:
    return WIDTH * min(1.0, max(0.0, (at - start) / max(end - start, 1e-9)))


def _curve(
    xs: list[float], row: list[float], below: list[float] | None, top: float, series: Series
) -> Markup:
    if not row:
        return Markup("")
    ys = [HEIGHT * (1 - value / top) for value in row]
    line = " ".join(f"{x:.1f},{y:.2f}" for x, y in zip(xs, ys, strict=True))
    if not series.area:
        return Markup('<polyline class="line {}" points="{}"/>').format(series.style, line)
    floor = [HEIGHT * (1 - value / top) for value in below] if below else [float(HEIGHT)] * len(xs)
    back = " ".join(f"{x:.1f},{y:.2f}" for x, y in zip(reversed(xs), reversed(floor), strict=True))
    return Markup('<polygon class="area {}" points="{} {}"/>').format(series.style, line, back)


def _grid() -> Markup:
    lines = (HEIGHT * part / _TICKS for part in range(_TICKS + 1))
    return Markup("").join(
        Markup('<line class="grid" x1="0" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(WIDTH, y, y)
        for y in lines
    )


def _marker(marker: Marker, start: float, end: float) -> Markup:
    if not start <= marker.at <= end:
        return Markup("")
    x = f"{_x(marker.at, start, end):.1f}"
    return Markup(
        '<a href="#{}" class="marker {}" aria-label="{}" data-text="{}"><line class="hit" x1="{}" x2="{}" y1="0" y2="{}"/>'
        '<line x1="{}" x2="{}" y1="0" y2="{}"/><title>{}</title></a>'
    ).format(marker.target, marker.style, marker.text, marker.text, x, x, HEIGHT, x, x, HEIGHT, marker.text)


def _short(value: float) -> str:
    """A number for a label: 0, 0.25, 12, 1.2k."""
    if value == 0 or not math.isfinite(value):
        return "0"
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            scale = {"G": 1e9, "M": 1e6, "k": 1e3}[suffix]
            return f"{value / scale:.3g}{suffix}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _clock(at: float, span: float) -> str:
    form = "%H:%M:%S" if span <= 1800 else "%H:%M"
    return f"{datetime.fromtimestamp(at, UTC).strftime(form)} UTC"
