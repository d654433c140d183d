"""The last day of an endpoint: its detail, its bounds, and the effect of a damaged file."""

from pathlib import Path

import pytest

from dashboard.history import DAY_SECONDS, FINE_MAX, History
from dashboard.samples import Sample

KEY = ("alice", 7)
MIDNIGHT = 1_800_000_000.0 - 1_800_000_000.0 % DAY_SECONDS


def filled(history: History, *, seconds: float, step: float = 2.0, start: float = MIDNIGHT) -> float:
    at = start
    while at < start + seconds:
        history.add([(KEY, Sample(at=at, load=1.0, queue=at % 60))])
        at += step
    return at


def test_the_last_hour_has_every_sample() -> None:
    history = History(None)
    now = filled(history, seconds=600)
    window = history.window(KEY, 600, now)
    assert len(window) == 300
    assert [sample.at for sample in window] == sorted(sample.at for sample in window)


def test_a_day_has_minutes_with_the_mean_of_the_load_and_the_peak_of_the_queue() -> None:
    history = History(None)
    now = filled(history, seconds=4 * 3600, step=5)
    window = history.window(KEY, 6 * 3600, now)
    assert len(window) == pytest.approx(240, abs=2)
    assert {sample.load for sample in window} == {1.0}
    assert window[0].queue == 55  # samples at 0, 5, … 55 s of the minute


def test_memory_is_bounded_whatever_the_interval() -> None:
    history = History(None)
    now = filled(history, seconds=FINE_MAX * 2.0, step=1.0)
    fine = [sample for sample in history.window(KEY, FINE_MAX, now) if sample.at >= now - FINE_MAX]
    assert len(fine) <= FINE_MAX + 60


def test_minutes_older_than_a_day_are_deleted(tmp_path: Path) -> None:
    history = History(tmp_path / "day.sqlite")
    filled(history, seconds=120, step=30)
    now = filled(history, seconds=120, step=30, start=MIDNIGHT + 2 * DAY_SECONDS)
    assert min(sample.at for sample in history.window(KEY, 10 * DAY_SECONDS, now)) >= MIDNIGHT + DAY_SECONDS


def test_the_day_outlives_the_process(tmp_path: Path) -> None:
    history = History(tmp_path / "day.sqlite")
    now = filled(history, seconds=300)
    history.close()
    again = History(tmp_path / "day.sqlite")
    window = again.window(KEY, 3600, now)
    assert [sample.at for sample in window] == [MIDNIGHT + 60 * minute for minute in range(5)]


@pytest.mark.parametrize("content", [b"", b"not a database", b"SQLite format 3\x00" + b"\xff" * 500])
def test_a_damaged_file_costs_the_old_charts_and_nothing_else(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "day.sqlite"
    file.write_bytes(content)
    history = History(file)
    now = filled(history, seconds=180)
    assert len(history.window(KEY, 600, now)) == 90
    history.close()


def test_a_file_of_another_version_is_begun_anew(tmp_path: Path) -> None:
    import sqlite3

    file = tmp_path / "day.sqlite"
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE minutes (account TEXT, endpoint INTEGER, something REAL)")
    other.close()
    history = History(file)
    now = filled(history, seconds=180)
    history.close()
    assert History(file).window(KEY, 3600, now)


def test_a_deleted_endpoint_leaves_the_memory() -> None:
    history = History(None)
    filled(history, seconds=10)
    history.forget(set())
    assert history.latest(KEY) is None


def line(at: float, reason: str) -> dict[str, object]:
    return {"at": at, "kind": "keep", "subject": "", "reason": reason}


def reasons(history: History, key: tuple[str, int] = KEY) -> list[tuple[object, object]]:
    return [(each["at"], each["reason"]) for each in history.decisions(key, 0.0)]


def test_decisions_that_the_log_has_dropped_are_kept_for_a_day(tmp_path: Path) -> None:
    history = History(tmp_path / "day.sqlite")
    history.add_decisions(KEY, [line(1, "a"), line(2, "b"), line(2, "c")])
    history.add_decisions(KEY, [line(2, "c"), line(3, "d")])  # the log has lost a and b
    history.close()
    again = History(tmp_path / "day.sqlite")
    assert reasons(again) == [(3, "d"), (2, "c"), (2, "b"), (1, "a")]
    assert reasons(again, ("bob", 7)) == []
    again.add_decisions(KEY, [line(2 + DAY_SECONDS, "e"), line(2.5 + DAY_SECONDS, "f")])
    assert reasons(again)[2:] == [(3, "d")]


@pytest.mark.parametrize("before", [[], [line(1, "a")]])
def test_a_repeated_decision_is_kept_at_its_last_time_only(before: list[dict[str, object]]) -> None:
    history = History(None)
    for at in (2.0, 3.0, 4.0):
        history.add_decisions(KEY, [*before, line(at, "again")])
    assert reasons(history) == [(4, "again"), *([(1, "a")] if before else [])]
