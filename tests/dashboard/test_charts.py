"""A chart shows every sample and decision, and no text of another machine becomes markup."""

import json
import re
from collections.abc import Callable
from html import unescape
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.charts import Chart, Marker, Series, figure, nice_top, picture, pins, thinned
from dashboard.pages.endpoint_pages import STYLE
from dashboard.samples import Sample
from dashboard.text import shown

LOAD = Series("load", "load", lambda sample: sample.load, area=True)
HOT = Series("hot", "hot", lambda sample: sample.capacity_hot)


def samples(*loads: float) -> list[Sample]:
    return [Sample(at=1000.0 + 2 * number, load=load, capacity_hot=10.0) for number, load in enumerate(loads)]


def chart(
    found: list[Sample], series: list[Series], *, start: float = 1000.0, end: float, **more: Any
) -> Chart:
    return Chart(title="Load", unit="load/s", samples=found, series=series, start=start, end=end, **more)


def drawn(made: Chart) -> ET.Element:
    return ET.fromstring(figure(made))  # noqa: S314 - our own markup


def test_a_curve_has_a_point_for_every_sample_between_the_axes() -> None:
    found = drawn(chart(samples(0, 5, 10), [LOAD, HOT], end=1004.0))
    line = found.find(".//polyline")
    assert line is not None
    points = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert [x for x, _ in points] == [0.0, 500.0, 1000.0]
    # capacity 10 on an axis up to 12: 100 x (1 - 10/12) from the top
    assert [y for _, y in points] == [16.67] * 3


def test_the_readout_has_the_value_of_every_series_at_every_point() -> None:
    found = drawn(chart(samples(1, 2), [LOAD, HOT], end=1002.0))
    plot = found.find(".//div[@class='plot']")
    assert plot is not None
    data = json.loads(plot.attrib["data-series"])
    assert data["names"] == ["load", "hot"]
    assert data["values"] == [[1.0, 2.0], [10.0, 10.0]]


def test_stacked_curves_lie_on_top_of_each_other() -> None:
    found = drawn(chart(samples(2), [LOAD, HOT], end=1001.0, stacked=True))
    line = found.find(".//polyline")
    assert line is not None
    # 2 + 10 of 12
    assert line.attrib["points"] == "0.0,0.00 0.0,0.00"


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "\x1b[31m\u202e",
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='alert(1)",
        "</title>",
    ],
)
@pytest.mark.parametrize("made", [figure, lambda each: picture("<em>", [each], STYLE)])
def test_the_text_of_a_decision_stays_text(text: str, made: Callable[[Chart], str]) -> None:
    marker = Marker(1001.0, text, "decision-1")
    markup = str(made(chart(samples(1, 2), [LOAD], end=1002.0, markers=[marker])))
    elements = ET.fromstring(markup).iter()  # noqa: S314 - our own markup
    (title,) = (each for each in elements if each.tag.rpartition("}")[2] == "title")
    assert title.text == shown(text)
    for raw in ("<script", "<img", "<em>", "\x1b", "\u202e"):
        assert raw not in markup


def test_a_decision_outside_the_range_is_not_drawn() -> None:
    marker = Marker(900.0, "old", "decision-1")
    assert "old" not in figure(chart(samples(1), [LOAD], end=1002.0, markers=[marker]))


def test_decisions_that_would_overlap_share_a_pin_with_a_line_for_each() -> None:
    given = [
        Marker(1000.0, "first", "decision-1", "keep"),
        Marker(1000.5, "second", "decision-2", "fail"),
        Marker(1099.0, "third", "decision-3", "config"),
        Marker(1200.0, "later", "decision-4"),
    ]
    # 0.5 of 100 s are 5 of 1000 units, less than the 8 of a pin
    assert pins(given, 1000.0, 1100.0) == [
        Marker(1000.0, "first\nsecond", "decision-1", "fail"),
        Marker(1099.0, "third", "decision-3", "config"),
    ]


@given(st.lists(st.floats(0, 100), max_size=200))
def test_every_decision_of_the_range_is_on_a_pin(times: list[float]) -> None:
    given_ = [Marker(at, f"{number}", f"decision-{number}") for number, at in enumerate(sorted(times))]
    found = pins(given_, 0.0, 100.0)
    assert [line for pin in found for line in pin.text.split("\n")] == [marker.text for marker in given_]
    assert all(10 * (after.at - before.at) >= 7.9 for before, after in pairwise(found))


def test_a_gap_in_the_samples_is_a_gap_in_the_curve() -> None:
    # Samples every 60 s, none between 1600 and 2600; the longest step of a curve is 150 s.
    times = [*range(1000, 1601, 60), *range(2600, 3001, 60)]
    found = [Sample(at=float(at), load=1.0, capacity_hot=1.0) for at in times]
    figure_ = drawn(chart(found, [LOAD, HOT], end=3000.0))
    assert len(figure_.findall(".//polyline")) == len(figure_.findall(".//polygon")) == 2


def test_a_single_sample_is_a_dot() -> None:
    line = drawn(chart(samples(5), [HOT], end=1001.0)).find(".//polyline")
    assert line is not None
    assert line.attrib["points"] == "0.0,16.67 0.0,16.67"


def test_a_picture_is_an_svg_file_with_its_own_colours() -> None:
    markers = [Marker(1001.0, "recruit", "decision-1", "fail")]
    each = chart(samples(1, 2), [LOAD, HOT], end=1002.0, markers=markers)
    text = picture("llm", [each, each], STYLE)
    root = ET.fromstring(text)  # noqa: S314 - our own markup
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in text
    assert ".area.load { fill: #" in text
    for foreign in ("href", "url(", "@import", "<a "):
        assert foreign not in text
    words = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words[0] == "llm"
    assert words.count("1.2") == 0
    assert words.count("12") == 2, "the axis of each chart reaches above the capacity of 10"


def test_without_samples_the_chart_says_so() -> None:
    found = drawn(chart([], [LOAD], end=1002.0))
    picture = found.find(".//svg")
    assert picture is not None
    assert picture.attrib["aria-label"] == "Load in load/s, now: no data yet"


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=400), st.integers(3, 50))
def test_thinning_keeps_the_last_sample_and_the_highest_load(loads: list[float], most: int) -> None:
    found = samples(*loads)
    kept = thinned(found, most)
    assert len(kept) <= most
    assert kept[-1] == found[-1]
    assert max(sample.load for sample in kept) == max(loads)
    assert [sample.at for sample in kept] == sorted(sample.at for sample in kept)


@given(st.floats(1e-9, 1e12))
def test_the_axis_reaches_the_highest_value_and_at_most_twice_that(value: float) -> None:
    assert value <= nice_top(value) * (1 + 1e-12)
    assert nice_top(value) < 2 * value


def test_the_axis_of_a_value_below_the_normal_numbers_is_that_of_zero() -> None:
    assert nice_top(5e-324) == nice_top(0.0)


def test_labels_of_an_axis_are_short() -> None:
    markup = str(figure(chart(samples(1), [LOAD], end=1002.0)))
    labels = re.findall(r"<span>([^<]*)</span>", unescape(markup))
    assert labels[:4] == ["1.2", "0.8", "0.4", "0"]
