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
