from hypothesis import given
from hypothesis import strategies as st

from policy.load.peaks import held_level, merge_closest_peaks, next_release, update_peaks


def test_a_level_is_held_from_its_last_use():
    peaks = update_peaks(update_peaks((), 300, 0, 60), 300, 50, 60)
    peaks = update_peaks(peaks, 100, 70, 60)
    assert held_level(peaks, 70, 60) == 300
    assert next_release(peaks, 70, 60) == 130
    assert held_level(update_peaks(peaks, 100, 129, 60), 129, 60) == 300
    assert held_level(update_peaks(peaks, 100, 130, 60), 130, 60) == 100


def test_each_level_has_its_own_timer():
    peaks = update_peaks(update_peaks(update_peaks((), 300, 0, 60), 200, 10, 60), 100, 40, 60)
    assert held_level(update_peaks(peaks, 100, 71, 60), 71, 60) == 200
    assert held_level(update_peaks(peaks, 100, 101, 60), 101, 60) == 100


def test_a_longer_memory_allows_shorter_holds():
    peaks = ((0.0, 300.0), (50.0, 200.0), (90.0, 100.0))
    assert (held_level(peaks, 90, 600), held_level(peaks, 90, 60), held_level(peaks, 90, 10)) == (
        300,
        200,
        100,
    )
    assert (next_release(peaks, 90, 600), next_release(peaks, 90, 60)) == (600, 110)
    assert next_release(peaks, 90, 10) is None


def test_an_expired_peak_is_forgotten():
    peaks = ((5.0, 300.0), (50.0, 200.0))
    assert update_peaks(peaks, 100, 64, 60) == ((5.0, 300.0), (64, 200.0), (64, 100))
    assert update_peaks(peaks, 100, 65, 60) == ((65, 200.0), (65, 100))


def test_the_closest_of_too_many_peaks_are_merged_into_the_higher_and_later_one():
    levels = [1000.0 - 10 * number for number in range(26)]
    levels[12] = levels[11] - 3  # the closest two; then 17 lie before the next one
    levels[20] = levels[19] - 5
    peaks = [(float(number), level) for number, level in enumerate(levels)]
    expected = [(at, level) for at, level in peaks if at not in {11.0, 12.0, 19.0, 20.0}]
    expected += [(12.0, levels[11]), (20.0, levels[19])]
    assert merge_closest_peaks(list(peaks)) == tuple(sorted(expected))
    assert merge_closest_peaks(peaks[:24]) == tuple(peaks[:24])


def test_growth_removes_lower_peaks():
    assert update_peaks(((0.0, 300.0), (5.0, 100.0)), 400, 10, 60) == ((10, 400),)


def test_adding_a_level_twice_changes_nothing():
    peaks = update_peaks(((0.0, 300.0),), 100, 10, 60)
    assert update_peaks(peaks, 100, 10, 60) == peaks


@given(st.lists(st.tuples(st.floats(0.1, 30.0), st.floats(0.0, 1000.0)), min_size=1, max_size=80))
def test_the_held_level_covers_all_recent_levels_in_bounded_memory(steps):
    peaks, now, past = (), 0.0, []
    for pause, level in steps:
        now += pause
        past.append((now, level))
        peaks = update_peaks(peaks, level, now, 60.0)
        assert held_level(peaks, now, 60.0) >= max(value for at, value in past if now - at < 60.0)
        assert len(peaks) <= 24
