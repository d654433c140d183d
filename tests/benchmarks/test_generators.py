import itertools
import statistics

import pytest

from benchmarks.scaling import generators


@pytest.mark.parametrize("name", ["diurnal", "bursty", "flash_crowd", "on_off", "sparse"])
def test_the_same_seed_makes_the_same_traffic(name):
    make = getattr(generators, name)
    assert make(requests=500, seed=4) == make(requests=500, seed=4)
    assert make(requests=500, seed=4).times != make(requests=500, seed=5).times


@pytest.mark.parametrize("name", ["diurnal", "flash_crowd", "on_off", "sparse"])
def test_about_as_many_requests_come_as_asked(name):
    assert len(getattr(generators, name)(requests=4000)) == pytest.approx(4000, rel=0.15)


def test_off_is_off():
    trace = generators.on_off(requests=2000, on_seconds=600.0, off_seconds=1200.0)
    assert all(at % 1800.0 < 600.0 for at in trace.times)


def test_a_flash_of_requests_comes_at_once():
    trace = generators.flash_crowd(requests=5000)
    before = len(trace.part(6000.0, 7200.0)) / 1200.0
    after = len(trace.part(7230.0, 7530.0)) / 300.0
    assert after > 6 * before


def test_nights_are_quiet():
    trace = generators.diurnal(requests=5000)
    assert len(trace.part(0.0, 7200.0)) < len(trace.part(39_600.0, 46_800.0)) / 3


@pytest.mark.parametrize("cv", [1.0, 3.0, 6.0])
def test_the_gaps_of_a_tenant_vary_as_asked(cv):
    trace = generators.tenant(requests=8000, cv=cv, days=1, first_weekday=0, depth=0.0)
    gaps = [later - earlier for earlier, later in itertools.pairwise(trace.times)]
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(cv, rel=0.25)


def test_a_tenant_rests_at_night_and_at_weekends():
    trace = generators.tenant(requests=8000, cv=1.0)
    hour = [len(trace.part(number * 3600.0, (number + 1) * 3600.0)) for number in range(5 * 24)]
    assert hour[14] > 4 * hour[2]
    assert sum(hour[48:72]) < 0.5 * sum(hour[:24])


def test_few_large_requests_are_much_of_a_tenants_work():
    works = sorted(generators.tenant(requests=8000, cv=3.0).works)
    assert sum(works[-len(works) // 20 :]) > 0.15 * sum(works)
