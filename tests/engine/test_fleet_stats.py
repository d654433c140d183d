"""Costs of GPUs and times of boots, from one memo to the next."""

from dataclasses import replace

import pytest

from engine.fleet_stats import FleetStats, gpu_dollars_per_hour
from engine.routing.listing import Listing
from stoker_wire.states import WorkerState as S

NOW = 1_000_000.0
LOADING = Listing(state=S.MODEL_LOADING, since=NOW, price=0.4)


def test_dollars_follow_the_price_of_the_fleet_from_memo_to_memo():
    stats = FleetStats()
    stats.change_price(gpu_dollars_per_hour([LOADING]), NOW)
    ready = replace(LOADING, state=S.READY, since=NOW + 900)
    stats.change_price(gpu_dollars_per_hour([ready]), NOW + 900)
    # a quarter of an hour booting and half an hour hot at $0.40
    assert stats.gpu_dollars(NOW + 2700) == pytest.approx({"booting": 0.1, "hot": 0.2})
    stats.change_price(gpu_dollars_per_hour([replace(ready, state=S.INACTIVE)]), NOW + 2700)
    assert stats.gpu_dollars(NOW + 9000) == pytest.approx({"booting": 0.1, "hot": 0.2})


def test_a_clock_that_is_set_back_never_makes_the_dollars_less():
    stats = FleetStats()
    stats.change_price({"hot": 3.6, "booting": 0.0}, NOW)
    stats.change_price({"hot": 3.6, "booting": 0.0}, NOW + 1000)
    stats.change_price({"hot": 3.6, "booting": 0.0}, NOW + 500)
    assert stats.gpu_dollars(NOW + 600)["hot"] == pytest.approx(1.0)
    assert stats.gpu_dollars(NOW + 1100)["hot"] == pytest.approx(1.1)
    assert stats.gpu_dollars(NOW + 800)["hot"] == pytest.approx(1.1)  # set back between two scrapes
    stats.change_price({"hot": 7.2, "booting": 0.0}, NOW + 900)
    assert stats.gpu_dollars(NOW + 1150)["hot"] == pytest.approx(1.2)


def test_a_boot_counts_in_each_state_that_it_leaves():
    stats, before = FleetStats(), Listing(state=S.CREATING, since=NOW)
    for state, seconds in (
        (S.LOADING, 4),
        (S.MODEL_LOADING, 64),
        (S.MODEL_LOADING, 64),
        (S.READY, 94),
        (S.INACTIVE, 500),
    ):
        after = Listing(state=state, since=NOW + seconds)
        stats.change_state(before, after)
        before = after
    assert {state: histogram.seconds for state, histogram in stats.boots.items()} == {
        S.CREATING.value: 4, S.LOADING.value: 60, S.MODEL_LOADING.value: 30
    }  # fmt: skip
