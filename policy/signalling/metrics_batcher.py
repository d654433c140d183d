"""When an engine reports an endpoint's metrics to its workflow, so that a steady endpoint costs few actions.

Urgent causes are reported at once, changes of load at most every few seconds, steady load with a slow heartbeat. An
idle endpoint without workers is not reported.
"""

import math
from dataclasses import dataclass

from policy.signalling.significance import (
    Arrivals,
    QueueState,
    activity_report_due_at,
    arrivals_changed,
    queue_changed,
)
from policy.tuning import DEFAULT_TUNING


@dataclass(frozen=True, slots=True)
class Window(Arrivals):
    """Arrivals within the `seconds` before `ended_at`."""

    ended_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Gauges:
    """The endpoint's present state, reported beside its arrivals."""

    queue: QueueState = QueueState()
    workers: int = 0
    """Includes cold ones: the planner needs reports to distinguish zero load from missing data."""
    workers_cold: int = 0
    holding: bool = False
    """Whether any worker holds a request, or a ticket is open."""
    inactivity_timeout: float | None = None
    """The endpoint's parameter, seconds after the last reported request."""


class MetricsBatcher:
    """Counts the arrivals of one endpoint and decides when they are reported. Every method takes the time.

    `spread`, 0 to 1, places the first heartbeat and the end of the first slice within their periods: an engine that
    discovers a thousand endpoints at once must not report all of them at the same moment every minute.
    """

    def __init__(self, now: float, *, spread: float = 0.0) -> None:
        self._slice_at = now
        self._slice_ends = (
            now
            + DEFAULT_TUNING.metrics_slice_seconds
            - spread * DEFAULT_TUNING.metrics_heartbeat_seconds % DEFAULT_TUNING.metrics_slice_seconds
        )
        self._slice_load = 0.0
        self._slice_requests = 0
        self._steady_at = now
        """Start of the slices that were like the last report."""
        self._steady_load = 0.0
        self._steady_requests = 0
        self._reported_at = now - spread * DEFAULT_TUNING.metrics_heartbeat_seconds
        self._reported: Arrivals | None = Arrivals()
        """Arrivals of the last report; None: they were too short to be a rate, so the next full slice is a change."""
        self._reported_gauges = Gauges()
        self._changed = False
        self._heartbeat_due = False
        """A heartbeat was due at the end of the last slice."""
        self._urgent: dict[str, float] = {}
        """Urgent causes, each with the time from which it may be reported."""
        self._urgent_reported: dict[str, float] = {}
        self.last_request_at: float | None = None
        self._reported_request_at: float | None = None

    def __repr__(self) -> str:
        urgent = ", ".join(self._urgent) or "nothing"
        return f"<MetricsBatcher {self._slice_requests} new, urgent {urgent}>"

    def record_arrival(self, load: float, now: float) -> None:
        """A request of this cost arrived."""
        self._slice_load += load
        self._slice_requests += 1
        self.last_request_at = now

    def record_activity(self, now: float) -> None:
        """A request runs or just ended: the endpoint is idle from the end of a request, not from its arrival."""
        self.last_request_at = now

    def mark_changed(self) -> None:
        """A value besides load changed: report it with the next regular batch."""
        self._changed = True

    def request_urgent(self, cause: str, now: float) -> None:
        """Request a batch at once for this cause."""
        if cause not in self._urgent:
            self._urgent[cause] = max(
                now, self._urgent_reported.get(cause, -1e18) + DEFAULT_TUNING.urgent_gap_seconds
            )

    def urgent_due_at(self) -> float | None:
        """When the next urgent batch is due; None: none was requested."""
        return min(self._urgent.values()) if self._urgent else None

    def due(self, gauges: Gauges, now: float) -> str | None:
        """Why a batch is due now: the urgent causes, or an empty text for a regular batch; None: no batch is due.

        The answer stays the same until `take_windows` is called.
        """
        ready = [cause for cause, at in self._urgent.items() if at <= now]
        if ready:
            return ", ".join(ready)
        if self._heartbeat_due:
            return ""
        if now >= self._slice_ends:
            if self._changed or self._rate_changed(now) or self._gauges_changed(gauges):
                return ""
            self._close_slice(now)
            reporting = gauges.workers > 0 or gauges.queue.requests > 0 or self._steady_requests > 0
            self._heartbeat_due = reporting and now - self._reported_at >= self._heartbeat_seconds(gauges)
            if self._heartbeat_due:
                return ""
        if now >= self._activity_due_at(gauges.inactivity_timeout):
            return ""
        return None

    def not_due_before(self, inactivity_timeout: float | None) -> float:
        """Before this time `due` answers None, whatever arrives or waits, unless an urgent batch is requested.

        A loop over many endpoints skips their gauges until then.
        """
        if self._heartbeat_due:
            return -math.inf
        return min(self._slice_ends, self._activity_due_at(inactivity_timeout), *self._urgent.values())

    def _activity_due_at(self, inactivity_timeout: float | None) -> float:
        return activity_report_due_at(self._reported_request_at, self.last_request_at, inactivity_timeout)

    def _heartbeat_seconds(self, gauges: Gauges) -> float:
        if gauges.queue.requests:
            return DEFAULT_TUNING.metrics_heartbeat_queue_seconds
        idle = gauges.workers_cold == gauges.workers and not self._steady_requests and not self._reported_load
        return (
            DEFAULT_TUNING.metrics_heartbeat_idle_seconds
            if idle
            else DEFAULT_TUNING.metrics_heartbeat_seconds
        )

    def take_windows(self, gauges: Gauges, now: float) -> list[Window]:
        """The unreported arrivals, oldest first. They count as reported afterwards.

        Steady slices and the slice that differs are two windows: one average would hide a burst in the calm before it.
        """
        windows = []
        steady = self._slice_at - self._steady_at
        if steady > 0 and (self._steady_requests or self._reported_load):
            windows.append(Window(steady, self._steady_load, self._steady_requests, self._slice_at))
        current = max(0.0, now - self._slice_at)
        if current > 0 or self._slice_requests or not windows:
            windows.append(Window(current, self._slice_load, self._slice_requests, now))
        last = windows[-1]
        if last.seconds >= DEFAULT_TUNING.metrics_slice_seconds / 2:
            self._reported = last
        elif last.requests:
            self._reported = None
        self._slice_at = self._steady_at = self._reported_at = now
        self._slice_ends = now + DEFAULT_TUNING.metrics_slice_seconds
        self._heartbeat_due = False
        self._slice_load = self._steady_load = 0.0
        self._slice_requests = self._steady_requests = 0
        self._reported_request_at = self.last_request_at
        self._reported_gauges = gauges
        self._changed = False
        for cause in [cause for cause, at in self._urgent.items() if at <= now]:
            del self._urgent[cause]
            self._urgent_reported[cause] = now
        return windows

    @property
    def _reported_load(self) -> bool:
        """Whether the last report contained load, or was too short to tell."""
        return self._reported is None or self._reported.load > 0

    def _rate_changed(self, now: float) -> bool:
        """Whether this slice differs from the last report, or all slices since then do: small steps add up."""
        reported = self._reported
        if reported is None:
            return True
        load, requests = self._slice_load, self._slice_requests
        return arrivals_changed(reported, Arrivals(now - self._slice_at, load, requests)) or arrivals_changed(
            reported,
            Arrivals(now - self._steady_at, self._steady_load + load, self._steady_requests + requests),
        )

    def _gauges_changed(self, gauges: Gauges) -> bool:
        reported = self._reported_gauges
        if reported.holding and not gauges.holding:
            return True  # the last request ended: a drain may wait for this
        return queue_changed(reported.queue, gauges.queue)

    def _close_slice(self, now: float) -> None:
        """Add the slice to the steady ones: it was like the last report."""
        self._steady_load += self._slice_load
        self._steady_requests += self._slice_requests
        self._slice_load, self._slice_requests = 0.0, 0
        self._slice_at, self._slice_ends = now, now + DEFAULT_TUNING.metrics_slice_seconds
