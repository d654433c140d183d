"""Charts over time as SVG. Pure: samples in, markup out; colours and fonts come from the style sheet.

On a page the drawing is stretched to the width of the screen, so labels are HTML beside it and not text inside it. As a
picture of its own, the same drawings are placed beside each other, with text around them.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup

from dashboard.samples import Sample
from dashboard.text import UNKNOWN, shown
from dashboard.text import number as plain_number

WIDTH, HEIGHT = 1000, 100
"""Units of the drawing, not pixels."""
POINTS_MAX = 240
"""Points drawn per series. Doubled: sharper charts of a day, and twice the bytes per update."""
GAP_SECONDS_MIN = 150.0
"""Two missing samples of a range in minutes."""
_PIN_UNITS = 8
"""Decisions closer to each other share one pin: about 4 pixels."""
_TICKS = 3
_KINDS = ("fail", "wait", "config")
"""Kinds of decisions with a style of their own, the most important first."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """The charts' content, from `start` to `end` (Unix seconds)."""

    title: str
    unit: str
    samples: Sequence[Sample]
    series: Sequence[Series]
    start: float
    end: float
    markers: Sequence[Marker] = ()
    """Oldest first."""
    stacked: bool = False
    """Each curve is drawn on top of the one before."""
    written: Callable[[float], str] = plain_number
    """A value in the legend."""

    def rows(self) -> tuple[list[Sample], list[list[float]]]:
        """The samples that are drawn, and the values of each series."""
        kept = thinned(self.samples, POINTS_MAX)
        return kept, [[max(0.0, one.value(sample)) for sample in kept] for one in self.series]


def figure(chart: Chart) -> Markup:
    """The chart as a part of a page, with its values for the readout under the pointer."""
    kept, values = chart.rows()
    labels = Markup("").join(Markup("<span>{}</span>").format(label) for label in _labels(chart, values))
    legend = Markup("").join(
        Markup('<li class="{}"><span class="swatch" aria-hidden="true"></span>{} <b>{}</b></li>').format(
            one.style, one.name, value
        )
        for one, value in _legend(chart, values)
    )
    spoken = ", ".join(f"{one.name} {value}" for one, value in _legend(chart, values) if value != UNKNOWN)
    data = {
        "at": [round(sample.at, 1) for sample in kept],
        "x": [round(_x(sample.at, chart) / WIDTH, 4) for sample in kept],
        "names": [one.name for one in chart.series],
        "values": [[float(f"{value:.4g}") for value in row] for row in values],
        "unit": chart.unit,
        "days": chart.end - chart.start > 86_400,
    }
    return Markup(
        '<figure class="chart"><figcaption>{} <small>{}</small></figcaption>'
        '<ul class="legend">{}</ul><div class="plot" data-series="{}"><div class="y" aria-hidden="true">{}</div>'
        '<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg></div>'
        '<div class="x" aria-hidden="true"><span>{}</span><span>{}</span><span>{}</span></div></figure>'
    ).format(
        chart.title,
        chart.unit,
        legend,
        json.dumps(data, separators=(",", ":")),
        labels,
        WIDTH,
        HEIGHT,
        f"{chart.title} in {chart.unit}, now: {spoken or 'no data yet'}",
        _drawing(chart, kept, values, links=True),
        *_clocks(chart),
    )


_CELL = (520, 232)
_PLOT = (44, 46, 470, 150)
"""Left, top, width and height of a plot in its cell."""
_COLUMNS = 2
_LETTER = 7.4
"""Width of a letter of the legend, about."""


def picture(title: str, charts: Sequence[Chart], style: str) -> str:
    """The charts as an SVG file of its own.

    Args:
        style: the style sheet; its variables are replaced by their first values, those of light colours.
    """
    rows = math.ceil(len(charts) / _COLUMNS)
    width, height = _COLUMNS * _CELL[0] + 20, rows * _CELL[1] + 40
    cells = [
        Markup('<g transform="translate({},{})">{}</g>').format(
            10 + place % _COLUMNS * _CELL[0], 36 + place // _COLUMNS * _CELL[1], _cell(chart)
        )
        for place, chart in enumerate(charts)
    ]
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" class="picture" width="{}" height="{}" viewBox="0 0 {} {}">'
        '<style>{}</style><rect class="ground" width="100%" height="100%"/><text class="title" x="10" y="24">{}</text>{}</svg>\n'
    ).format(width, height, width, height, Markup(_resolved(style)), shown(title), Markup("").join(cells))  # noqa: S704 - our own style sheet


def _cell(chart: Chart) -> Markup:
    kept, values = chart.rows()
    left, top, width, height = _PLOT
    texts = [
        Markup('<text class="caption" x="4" y="14">{} <tspan class="faint">{}</tspan></text>').format(
            chart.title, chart.unit
        )
    ]
    x = 4.0
    for one, value in _legend(chart, values):
        texts.append(
            Markup(
                '<g class="legend"><g class="{}"><rect class="swatch" x="{:.0f}" y="23" width="10" height="10" rx="2"/></g>'
                '<text x="{:.0f}" y="32">{} <tspan class="value">{}</tspan></text></g>'
            ).format(one.style, x, x + 14, one.name, value)
        )
        x += 30 + _LETTER * (len(one.name) + 1 + len(value))
    texts += [
        Markup('<text class="faint end" x="{}" y="{:.0f}">{}</text>').format(
            left - 6, top + 4 + height * part / _TICKS, label
        )
        for part, label in enumerate(_labels(chart, values))
    ]
    texts += [
        Markup('<text class="faint {}" x="{:.0f}" y="{}">{}</text>').format(
            ("", "middle", "end")[part], left + width * part / 2, top + height + 18, label
        )
        for part, label in enumerate(_clocks(chart))
    ]
    return Markup(
        '{}<svg x="{}" y="{}" width="{}" height="{}" viewBox="0 0 {} {}" preserveAspectRatio="none" '
        'overflow="visible">{}</svg>'
    ).format(
        Markup("").join(texts),
        *_PLOT,
        WIDTH,
        HEIGHT,
        _drawing(chart, kept, values, links=False),
    )


def _resolved(style: str) -> str:
    """The part of the style sheet for drawings, without variables: not every viewer of pictures knows them."""
    colours: dict[str, str] = {}
    for name, colour in re.findall(r"(--[\w-]+): ([^;]+);", style):
        colours.setdefault(name, colour)
    _, _, drawings = style.partition("/* drawings */")
    drawings, _, _ = drawings.partition("/* end of drawings */")
    return re.sub(r"var\((--[\w-]+)\)", lambda found: colours[found[1]], drawings)


def spark(samples: Sequence[Sample], value: Callable[[Sample], float], *, start: float, end: float) -> Markup:
    """A small area without axes, for a row of a table."""
    kept = thinned(samples, 60)
    if len(kept) < 2:
        return Markup('<svg class="spark" viewBox="0 0 100 20" aria-hidden="true"></svg>')
    row = [max(0.0, value(sample)) for sample in kept]
    top = nice_top(max(row))
    points = " ".join(
        f"{100 * _share(sample.at, start, end):.1f},{20 - 20 * each / top:.1f}"
        for sample, each in zip(kept, row, strict=True)
    )
    return Markup(
        '<svg class="spark" viewBox="0 0 100 20" preserveAspectRatio="none" aria-hidden="true">'
        '<polyline points="{}"/></svg>'
    ).format(points)


def bar(parts: Mapping[str, float], most: float) -> Markup:
    """A horizontal bar of parts by style class; `most` has the full length."""
    x, drawn = 0.0, []
    for style, value in parts.items():
        width = 100 * value / most if most > 0 else 0.0
        drawn.append(
            Markup('<rect class="area {}" x="{:.1f}" width="{:.1f}" height="8"/>').format(style, x, width)
        )
        x += width
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
    ).format(Markup("").join(drawn))


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
    if value < sys.float_info.min or not math.isfinite(value):
        return 3.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(unit * step for step in (1.2, 1.5, 2.1, 3.0, 4.5, 6.0, 9.0, 12.0) if unit * step >= value)


def pins(markers: Sequence[Marker], start: float, end: float) -> list[Marker]:
    """The markers from `start` to `end`, with those that would overlap joined: a line of text for each.

    A joined one leads to its first decision and has the style of the most important one.
    """
    found: list[list[Marker]] = []
    for marker in markers:
        if not start <= marker.at <= end:
            continue
        if found and WIDTH * (marker.at - found[-1][0].at) / max(end - start, 1e-9) < _PIN_UNITS:
            found[-1].append(marker)
        else:
            found.append([marker])
    return [
        Marker(
            together[0].at,
            "\n".join(marker.text for marker in together),
            together[0].target,
            next((kind for kind in _KINDS if any(each.style == kind for each in together)), "decision"),
        )
        for together in found
    ]


def _legend(chart: Chart, values: list[list[float]]) -> list[tuple[Series, str]]:
    """Each series with its newest value."""
    return [
        (one, chart.written(row[-1]) if row else UNKNOWN)
        for one, row in zip(chart.series, values, strict=True)
    ]


def _labels(chart: Chart, values: list[list[float]]) -> list[str]:
    """The labels of the vertical axis, from the top."""
    top = _top(_stacked(values) if chart.stacked else values)
    return [_short(top * part / _TICKS) for part in range(_TICKS, -1, -1)]


def _clocks(chart: Chart) -> list[str]:
    """The labels of the horizontal axis."""
    span = chart.end - chart.start
    return [_clock(chart.start + span * part / 2, span) for part in range(3)]


def _drawing(chart: Chart, kept: list[Sample], values: list[list[float]], *, links: bool) -> Markup:
    drawn = _stacked(values) if chart.stacked else values
    top = _top(drawn)
    xs = [_x(sample.at, chart) for sample in kept]
    axis = [0.0] * len(xs)
    floors = [axis, *drawn[:-1]] if chart.stacked else [axis] * len(drawn)
    areas, lines = [], []
    for first, end in _runs(kept, chart.end - chart.start):
        for one, row, floor in zip(chart.series, drawn, floors, strict=True):
            if one.area:
                areas.append(_area(xs[first:end], row[first:end], floor[first:end], top, one.style))
            else:
                lines.append(_line(xs[first:end], row[first:end], top, one.style))
    marks = [_pin(pin, _x(pin.at, chart), links=links) for pin in pins(chart.markers, chart.start, chart.end)]
    # The first line covers the others where they are equal.
    return Markup("").join([_grid(), *areas, *reversed(lines), *marks])


def gap_seconds(span: float) -> float:
    """The time without a sample that interrupts the curves of a range of `span` seconds."""
    return max(GAP_SECONDS_MIN, 3 * span / POINTS_MAX)


def _runs(samples: Sequence[Sample], span: float) -> Iterator[tuple[int, int]]:
    """First and end of each run of samples without a gap."""
    gap, first = gap_seconds(span), 0
    for place in range(1, len(samples)):
        if samples[place].at - samples[place - 1].at > gap:
            yield first, place
            first = place
    if samples:
        yield first, len(samples)


def _stacked(values: list[list[float]]) -> list[list[float]]:
    rows: list[list[float]] = []
    for row in values:
        rows.append([a + b for a, b in zip(rows[-1], row, strict=True)] if rows else row)
    return rows


def _top(drawn: list[list[float]]) -> float:
    return nice_top(max((value for row in drawn for value in row), default=0.0))


def _share(at: float, start: float, end: float) -> float:
    return min(1.0, max(0.0, (at - start) / max(end - start, 1e-9)))


def _x(at: float, chart: Chart) -> float:
    return WIDTH * _share(at, chart.start, chart.end)


def _line(xs: list[float], row: list[float], top: float, style: str) -> Markup:
    points = _points(xs, row, top)
    # A line of one point is a dot.
    return Markup('<polyline class="line {}" points="{}"/>').format(
        style, points if len(xs) > 1 else f"{points} {points}"
    )


def _area(xs: list[float], row: list[float], floor: list[float], top: float, style: str) -> Markup:
    return Markup('<polygon class="area {}" points="{} {}"/>').format(
        style, _points(xs, row, top), _points(xs[::-1], floor[::-1], top)
    )


def _points(xs: list[float], values: list[float], top: float) -> str:
    return " ".join(f"{x:.1f},{HEIGHT * (1 - value / top):.2f}" for x, value in zip(xs, values, strict=True))


def _grid() -> Markup:
    lines = (HEIGHT * part / _TICKS for part in range(_TICKS + 1))
    return Markup("").join(
        Markup('<line class="grid" x1="0" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(WIDTH, y, y)
        for y in lines
    )


def _pin(pin: Marker, at: float, *, links: bool) -> Markup:
    """A line with a head; the title is its name for screen readers, and the tooltip without scripts."""
    x = f"{at:.1f}"
    inner = Markup(
        '<title>{}</title><line class="hit" x1="{}" x2="{}" y1="0" y2="{}"/><line x1="{}" x2="{}" y1="0" y2="{}"/>'
        '<line class="head" x1="{}" x2="{}" y1="0" y2="0"/>'
    ).format(shown(pin.text), x, x, HEIGHT, x, x, HEIGHT, x, x)
    if not links:
        return Markup('<g class="marker {}">{}</g>').format(pin.style, inner)
    return Markup('<a href="#{}" class="marker {}">{}</a>').format(pin.target, pin.style, inner)


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
    form = "%H:%M:%S" if span <= 1800 else "%H:%M" if span <= 86_400 else "%Y-%m-%d %H:%M"
    return f"{datetime.fromtimestamp(at, UTC).strftime(form)} UTC"
