"""From active alerts to incidents: an alert fires after its condition held, and is resolved after it was absent.

Only observed time counts. While no engine reports, nothing is known of the endpoints, so their alerts neither fire nor
get resolved; the same holds for what only Temporal workers see. The length of a pause of the notifier is not counted.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from policy.alerting.rules import ENGINE_DOWN, RULES, WORKER_DOWN, AlertRule, runbook
from policy.wording import duration
from stoker_wire.alerts import REPORT_SECONDS, ActiveAlert, AlertReport, Notice, Role

CHECK_SECONDS = REPORT_SECONDS
"""Interval of the notifier's checks."""
SILENT_SECONDS = 2 * REPORT_SECONDS
"""A process without a report for this time counts as gone."""
FORGET_SECONDS = 3600.0
"""Then a gone process is forgotten: it was probably removed on purpose, or moved to another host."""
PROCESSES_MAX = 64
REPORTED_MAX = 1000
"""Active alerts that are kept of all processes together."""
TRACKED_MAX = 1000
"""Alerts that are followed at once."""

_NAMES: dict[Role, str] = {"engine": "engine", "worker": "Temporal worker"}

Key = tuple[str, str]
"""Name and subject."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """An engine or Temporal worker."""

    role: Role
    place: str
    silent_seconds: float = 0.0
    """Observed time since the check that followed its last report."""
    heard: bool = True
    """Whether it reported since the last check."""
    alerts: tuple[ActiveAlert, ...] = ()

    @property
    def is_live(self) -> bool:
        """Whether it reported lately."""
        return self.silent_seconds < SILENT_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """An alert between its first and its last observation."""

    alert: ActiveAlert
    """As last seen active."""
    active: bool = True
    seconds: float = 0.0
    """Observed time for which `active` has had its value."""
    firing_since: float | None = None

    @property
    def key(self) -> Key:
        """What tells it from others."""
        return self.alert.name, self.alert.subject


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertBook:
    """Everything that the notifier knows of alerts."""

    processes: tuple[Process, ...] = ()
    tracked: tuple[Tracked, ...] = ()
    checked_at: float = 0.0
    """Unix seconds; 0: never."""

    @property
    def firing(self) -> tuple[Tracked, ...]:
        """The incidents that are open."""
        return tuple(each for each in self.tracked if each.firing_since is not None)


def with_report(book: AlertBook, report: AlertReport) -> AlertBook:
    """The book after one process's report. A process that stops on purpose is forgotten."""
    place = (report.role, report.place)
    others = [each for each in book.processes if (each.role, each.place) != place]
    others = others[1 - PROCESSES_MAX :]
    if not report.stopping:
        free = REPORTED_MAX - sum(len(each.alerts) for each in others)
        others.append(Process(role=report.role, place=report.place, alerts=report.alerts[: max(0, free)]))
    return replace(book, processes=tuple(others))


def check(book: AlertBook, now: float, *, deployment: str = "") -> tuple[AlertBook, tuple[Notice, ...]]:
    """The book at `now`, and a notice for each alert that began or ceased to fire."""
    passed = min(max(now - book.checked_at, 0.0), 2 * CHECK_SECONDS) if book.checked_at else 0.0
    aged = (_aged(each, passed) for each in book.processes)
    processes = tuple(each for each in aged if each.silent_seconds < FORGET_SECONDS)
    active = _active(processes)
    known = {each.role for each in processes if each.is_live}
    tracked: list[Tracked] = []
    notices: list[Notice] = []
    before = {each.key: each for each in book.tracked if each.alert.name in RULES}
    for key in sorted({*before, *active}):
        if key not in before and len(tracked) >= TRACKED_MAX:
            continue
        rule = RULES[key[0]]
        if rule.seen_by is not None and rule.seen_by not in known:
            tracked += [before[key]] if key in before else []
            continue
        step = _observed(before.get(key), active.get(key), passed)
        after, state = _decided(step, rule, now)
        if state:
            notices.append(_notice(step if after is None else after, state, rule, now, deployment))
        if after is not None:
            tracked.append(after)
    return AlertBook(processes=processes, tracked=tuple(tracked), checked_at=now), tuple(notices)


def _aged(process: Process, passed: float) -> Process:
    return replace(
        process, silent_seconds=0.0 if process.heard else process.silent_seconds + passed, heard=False
    )


def _active(processes: Iterable[Process]) -> dict[Key, ActiveAlert]:
    """Every alert that a live process reports, and one for each process that is gone."""
    found: dict[Key, ActiveAlert] = {}
    for process in processes:
        if process.is_live:
            for alert in process.alerts:
                if alert.name in RULES:
                    found.setdefault((alert.name, alert.subject), alert)
        else:
            name = ENGINE_DOWN if process.role == "engine" else WORKER_DOWN
            text = f"the {_NAMES[process.role]} has not reported for {duration(process.silent_seconds)}"
            found[name, process.place] = ActiveAlert(name=name, subject=process.place, text=text)
    return found


def _observed(before: Tracked | None, seen: ActiveAlert | None, passed: float) -> Tracked:
    """The alert after another look at it."""
    if before is None:
        assert seen is not None
        return Tracked(alert=seen)
    is_active = seen is not None
    seconds = before.seconds + passed if is_active == before.active else 0.0
    return replace(before, alert=seen or before.alert, active=is_active, seconds=seconds)


def _decided(seen: Tracked, rule: AlertRule, now: float) -> tuple[Tracked | None, str]:
    """The alert to follow further, if any, and the state to tell, if it changed."""
    if seen.active:
        if seen.firing_since is None and seen.seconds >= rule.hold_seconds:
            return replace(seen, firing_since=now), "firing"
        return seen, ""
    if seen.firing_since is None:
        return None, ""
    return (None, "resolved") if seen.seconds >= rule.clear_seconds else (seen, "")


def _notice(seen: Tracked, state: str, rule: AlertRule, now: float, deployment: str) -> Notice:
    since = now if seen.firing_since is None else seen.firing_since
    alert = seen.alert
    incident = hashlib.sha256(f"{deployment}\n{alert.name}\n{alert.subject}\n{since!r}".encode()).hexdigest()[
        :24
    ]
    text = alert.text if state == "firing" else f"over after {duration(now - since)}; last seen: {alert.text}"
    return Notice(
        id=f"{incident}.{state}",
        incident=incident,
        alert=alert.name,
        state="firing" if state == "firing" else "resolved",
        severity=rule.severity,
        subject=alert.subject,
        summary=f"{alert.subject}: {text}" if alert.subject else text,
        runbook=runbook(alert.name),
        since=since,
        at=now,
        deployment=deployment,
    )
