import math

import pytest

from benchmarks.scaling.pareto_front import compared, half_width, swept, undominated
from benchmarks.scaling.scalers import PEERS


def row(scaler: str, dollars: float, within: float) -> dict:
    return {"scaler": scaler, "per_1000": dollars, "within_10": within}


ROWS = [
    row("stoker", 2.0, 0.96),
    row("stoker", 3.0, 0.991),
    row("HPA 70 %", 2.5, 0.95),
    row("HPA 70 %", 6.0, 0.999),
    row("static peak", 4.0, 0.992),
]


def test_a_front_leaves_out_what_is_dearer_and_late_more_often():
    assert [(each["per_1000"], each["within_10"]) for each in undominated(ROWS)] == [
        (2.0, 0.96),
        (3.0, 0.991),
        (4.0, 0.992),
        (6.0, 0.999),
    ]


def test_the_policy_is_compared_with_the_cheapest_peer_that_attains_as_much():
    def at(level: float, rows: list[dict] = ROWS) -> str:
        return compared([each for each in rows if each["within_10"] >= level])

    assert at(0.95) == "0.80 HPA 70 %"
    assert at(0.99) == "0.75 static peak"
    assert at(0.995) == "only HPA 70 %"
    assert at(0.95, ROWS[:2]) == "no peer"
    assert at(0.999, ROWS[:2]) == "none"


def test_an_interval_needs_more_than_one_seed():
    assert math.isnan(half_width([1.0]))
    # a standard deviation of 1 over three seeds: 4.30 / sqrt(3)
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.30 / math.sqrt(3))


def test_every_scaler_has_several_settings():
    contestants = swept(set())
    for name in ("stoker", *PEERS):
        assert len({each.label for each in contestants if each.scaler == name}) >= 4, name
    assert {each.scaler for each in swept({"stoker"}, settings_max=1)} == {"stoker"}
