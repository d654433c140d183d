"""A chart shows every sample, and no text of another machine becomes markup."""

import json
import re
from html import unescape
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.charts import Marker, Series, chart, nice_top, thinned
from dashboard.samples import Sample

LOAD = Series("load", "load", lambda sample: sample.load, area=True)
HOT = Series("hot", "hot", lambda sample: sample.capacity_hot)


def samples(*loads: float) -> list[Sample]:
    return [Sample(at=1000.0 + 2 * number, load=load, capacity_hot=10.0) for number, load in enumerate(loads)]


def drawn(markup: str) -> ET.Element:
    return ET.fromstring(markup)  # noqa: S314 - our own markup


def test_a_curve_has_a_point_for_every_sample_between_the_axes() -> None:
    figure = drawn(chart("Load", "load/s", samples(0, 5, 10), [LOAD, HOT], start=1000.0, end=1004.0))
    line = figure.find(".//polyline")
    assert line is not None
    points = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert [x for x, _ in points] == [0.0, 500.0, 1000.0]
    # capacity 10 on an axis up to 12: 100 x (1 - 10/12) from the top
    assert [y for _, y in points] == [16.67] * 3


def test_the_readout_has_the_value_of_every_series_at_every_point() -> None:
    figure = drawn(chart("Load", "load/s", samples(1, 2), [LOAD, HOT], start=1000.0, end=1002.0))
    plot = figure.find(".//div[@class='plot']")
    assert plot is not None
    data = json.loads(plot.attrib["data-series"])
    assert data["names"] == ["load", "hot"]
    assert data["values"] == [[1.0, 2.0], [10.0, 10.0]]


def test_stacked_curves_lie_on_top_of_each_other() -> None:
    figure = drawn(
        chart("Workers", "workers", samples(2), [LOAD, HOT], start=1000.0, end=1001.0, stacked=True)
    )
    line = figure.find(".//polyline")
    assert line is not None
    # 2 + 10 of 12
    assert line.attrib["points"] == "0.0,0.00"


@pytest.mark.parametrize(
    "text",
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", "</title>"],
)
def test_the_text_of_a_decision_stays_text(text: str) -> None:
    marker = Marker(1001.0, text, "decision-1")
    markup = str(chart("Load", "load/s", samples(1, 2), [LOAD], start=1000.0, end=1002.0, markers=[marker]))
    link = drawn(markup).find(".//a")
    assert link is not None
    assert link.attrib["aria-label"] == text
    assert link.findtext("title") == text
    assert "<script" not in markup
    assert "<img" not in markup


def test_a_decision_outside_the_range_is_not_drawn() -> None:
    marker = Marker(900.0, "old", "decision-1")
    assert "old" not in chart(
        "Load", "load/s", samples(1), [LOAD], start=1000.0, end=1002.0, markers=[marker]
    )


def test_without_samples_the_chart_says_so() -> None:
    figure = drawn(chart("Load", "load/s", [], [LOAD], start=1000.0, end=1002.0))
    picture = figure.find(".//svg")
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


def test_labels_of_an_axis_are_short() -> None:
    markup = str(chart("Load", "load/s", samples(1), [LOAD], start=1000.0, end=1002.0))
    labels = re.findall(r"<span>([^<]*)</span>", unescape(markup))
    assert labels[:4] == ["1.2", "0.8", "0.4", "0"]
