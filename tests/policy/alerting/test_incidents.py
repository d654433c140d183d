"""An alert fires after its condition held for its time, and is resolved after it was absent."""

import pydantic_core
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.alerting.incidents import (
    CHECK_SECONDS,
    FORGET_SECONDS,
    PROCESSES_MAX,
    REPORTED_MAX,
    TRACKED_MAX,
    AlertBook,
    check,
    with_report,
)
from policy.alerting.outbox import QUEUED_MAX, with_channels, with_notices
from policy.alerting.rules import ENGINE_DOWN, RULES, WORKER_DOWN
from stoker_wire.alerts import CHANNELS_MAX, ActiveAlert, AlertReport, Notice, NoticeChannel

NO_CAPACITY = ActiveAlert(name="StokerNoCapacity", subject="llm", text="2 requests wait")  # held for 300 s


class Life:
    """A notifier with reporting processes, one check every 30 s."""

    def __init__(self) -> None:
        self.book = AlertBook()
        self.now = 1_000_000.0
        self.notices: list[Notice] = []

    def pass_time(self, seconds: float, **reports: tuple[ActiveAlert, ...] | None) -> list[str]:
        """Each named process reports at every check, unless its value is None. Answers the new notices."""
        end, before = self.now + seconds, len(self.notices)
        while True:
            for name, alerts in reports.items():
                if alerts is not None:
                    self.report(name, *alerts)
            self.book, notices = check(self.book, self.now, deployment="test")
            self.notices += notices
            if self.now >= end:
                return [f"{each.alert} {each.state}" for each in self.notices[before:]]
            self.now += CHECK_SECONDS

    def report(self, name: str, *alerts: ActiveAlert, stopping: bool = False) -> None:
        role = "worker" if name.startswith("worker") else "engine"
        self.book = with_report(
            self.book, AlertReport(role=role, place=name, alerts=alerts, stopping=stopping)
        )


def test_an_alert_fires_once_after_its_hold_time():
    life = Life()
    assert life.pass_time(270, engine=(NO_CAPACITY,)) == []
    assert life.pass_time(30, engine=(NO_CAPACITY,)) == ["StokerNoCapacity firing"]
    assert life.pass_time(3600, engine=(NO_CAPACITY,)) == []
    (notice,) = life.notices
    assert notice.summary == "llm: 2 requests wait"
    assert (notice.severity, notice.since) == ("page", 1_000_300.0)
    assert notice.runbook == "docs/how-to/alerts.md#stokernocapacity"


def test_a_condition_with_breaks_does_not_fire():
    life = Life()
    for _ in range(20):
        life.pass_time(240, engine=(NO_CAPACITY,))
        life.pass_time(0, engine=())
    assert life.notices == []


def test_the_end_of_an_incident_is_reported_once_and_names_the_same_incident():
    life = Life()
    life.pass_time(300, engine=(NO_CAPACITY,))
    assert life.pass_time(90, engine=()) == []
    assert life.pass_time(3600, engine=()) == ["StokerNoCapacity resolved"]
    firing, resolved = life.notices
    assert firing.incident == resolved.incident
    assert firing.id != resolved.id
    assert resolved.since == firing.since
    assert life.book.tracked == ()


def test_an_incident_that_pauses_for_less_than_its_clear_time_stays_open():
    life = Life()
    life.pass_time(300, engine=(NO_CAPACITY,))
    for _ in range(30):
        life.pass_time(60, engine=())
        life.pass_time(30, engine=(NO_CAPACITY,))
    assert len(life.notices) == 1


def test_a_second_incident_of_the_same_alert_has_other_ids():
    life = Life()
    for _ in range(2):
        life.pass_time(300, engine=(NO_CAPACITY,))
        life.pass_time(300, engine=())
    assert len({notice.id for notice in life.notices}) == 4
    assert len({notice.incident for notice in life.notices}) == 2


def test_an_alert_is_active_while_any_engine_reports_it():
    life = Life()
    life.pass_time(150, one=(NO_CAPACITY,), two=())
    assert life.pass_time(150, one=(), two=(NO_CAPACITY,)) == ["StokerNoCapacity firing"]


def test_without_an_engine_incidents_of_endpoints_stay_as_they_are():
    life = Life()
    life.pass_time(300, engine=(NO_CAPACITY,), worker=())
    # The engine crashes: the worker reports on. Nobody knows whether requests still wait.
    assert life.pass_time(1800, engine=None, worker=()) == [f"{ENGINE_DOWN} firing"]
    assert life.pass_time(60, engine=(NO_CAPACITY,), worker=()) == [f"{ENGINE_DOWN} resolved"]
    assert life.pass_time(300, engine=(), worker=()) == ["StokerNoCapacity resolved"]


def test_a_pending_alert_does_not_fire_while_no_engine_reports():
    life = Life()
    life.pass_time(270, engine=(NO_CAPACITY,), worker=())
    life.report("engine", stopping=True)
    assert life.pass_time(3600, worker=()) == []


def test_a_lost_process_is_reported_and_so_is_its_return():
    life = Life()
    life.pass_time(60, engine=(), worker=())
    # Silent after 60 s, held for 60 s more.
    assert life.pass_time(90, engine=(), worker=None) == []
    assert life.pass_time(30, engine=(), worker=None) == [f"{WORKER_DOWN} firing"]
    assert life.notices[-1].subject == "worker"
    assert life.pass_time(30, engine=(), worker=()) == [f"{WORKER_DOWN} resolved"]


def test_a_process_that_stops_on_purpose_is_no_incident():
    life = Life()
    life.pass_time(60, one=(), two=())
    life.report("two", stopping=True)
    assert life.pass_time(3600, one=()) == []


def test_a_process_that_never_returns_is_forgotten_and_its_incident_ends():
    life = Life()
    life.pass_time(60, one=(), two=())
    assert life.pass_time(FORGET_SECONDS + 60, one=(), two=None) == [
        f"{ENGINE_DOWN} firing",
        f"{ENGINE_DOWN} resolved",
    ]


def test_a_pause_of_the_notifier_neither_fires_nor_resolves():
    life = Life()
    life.pass_time(30, engine=(NO_CAPACITY,), worker=())
    life.now += 86_400  # Temporal was away for a day
    # At most two checks' time is counted, so both processes still have time to report.
    assert life.pass_time(0, engine=None, worker=None) == []
    assert life.pass_time(120, engine=(NO_CAPACITY,), worker=()) == []


def test_an_unknown_alert_of_a_newer_engine_is_ignored():
    life = Life()
    assert life.pass_time(7200, engine=(ActiveAlert(name="StokerNew", subject="llm"),)) == []


def test_the_state_stays_below_what_temporal_accepts_whatever_is_reported():
    hostile = "\x1b\u202e\n" * 1000
    life = Life()
    for engine in range(PROCESSES_MAX + 6):
        alerts = tuple(
            ActiveAlert(name="StokerOrphansDestroyed", subject=f"{engine}-{n}-{hostile}", text=hostile)
            for n in range(300 if engine < 10 else 1)
        )
        life.report(f"engine-{engine}-{'x' * 200}", *alerts)
        life.pass_time(0)
    assert len(life.book.processes) == PROCESSES_MAX
    assert sum(len(each.alerts) for each in life.book.processes) <= REPORTED_MAX
    boxes = with_channels((), [NoticeChannel(name=f"channel-{n}") for n in range(CHANNELS_MAX)])
    full = [with_notices(box, life.notices) for box in boxes]
    assert {len(box.queue) for box in full} == {QUEUED_MAX}
    state = {"book": life.book, "outboxes": full}
    assert len(pydantic_core.to_json(state, serialize_unknown=True)) < 2 * 1024 * 1024
    assert len(life.book.tracked) <= TRACKED_MAX


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_can_fire_and_be_resolved(name):
    life = Life()
    if name in (ENGINE_DOWN, WORKER_DOWN):
        lost = "worker" if name == WORKER_DOWN else "engine-2"
        life.pass_time(0, **{"engine": (), lost: ()})
        notices = life.pass_time(600, engine=()) + life.pass_time(600, **{"engine": (), lost: ()})
    else:
        alert = ActiveAlert(name=name, subject="llm", text="it is so")
        notices = life.pass_time(7200, **{RULES[name].seen_by: (alert,)})
        notices += life.pass_time(7200, **{RULES[name].seen_by: ()})
    assert notices == [f"{name} firing", f"{name} resolved"]


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 400)), max_size=60))
def test_firing_and_resolved_alternate_whatever_is_reported(steps):
    life = Life()
    for reports, active, seconds in steps:
        if reports:
            life.report("engine", *((NO_CAPACITY,) if active else ()))
        life.now += seconds
        life.book, notices = check(life.book, life.now)
        life.notices += notices
    for alert in {notice.alert for notice in life.notices}:
        states = [notice.state for notice in life.notices if notice.alert == alert]
        assert states == ["firing", "resolved"] * (len(states) // 2) + ["firing"] * (len(states) % 2)
    assert len({notice.id for notice in life.notices}) == len(life.notices)
