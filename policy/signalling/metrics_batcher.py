"""When an endpoint's workflow is told what, so that a steady endpoint costs next to nothing.

At once when something cannot wait; at most every few seconds while load changes; else a slow heartbeat; and nothing
at all about an idle endpoint without workers.
"""

import math
from dataclasses import dataclass

from policy.signalling.significance import Arrivals, Waiting, arrivals_moved, renewed_at, waiting_moved

URGENT_GAP_SECONDS = 0.1
"""Between two urgent batches of one cause: a burst of the same news is one piece of news."""
SLICE_SECONDS = 5.0
HEARTBEAT_SECONDS = 60.0
COLD_HEARTBEAT_SECONDS = 600.0
"""While every worker is cold and nobody asks: the planner trusts silence about a cold pool for a quarter of an hour."""
QUEUE_HEARTBEAT_SECONDS = 10.0
"""While requests wait: an engine that has a queue and falls silent is taken for dead, its queue with it."""


@dataclass(frozen=True, slots=True)
class Window:
    """Arrivals of a stretch of time that ends at `ended_at`."""

    seconds: float
    load: float
    requests: int
    ended_at: float


@dataclass(frozen=True, slots=True)
class Level:
    """What there is to say besides arrivals."""

    waiting: Waiting = Waiting()
    workers: int = 0
    """Cold ones too: only an engine that speaks lets the planner tell no load from no data."""
    workers_cold: int = 0
    holding: bool = False
    """Whether any worker holds a request, or a ticket that it has not seen."""
    inactivity_timeout: float | None = None
    """The endpoint's: counted from the last request that was told."""


class MetricsBatcher:
    """Counts arrivals of one endpoint and says when they are due; every method takes the time.

    `spread`, 0 to 1, is where in its first minute the first heartbeat falls, and a slice ends with it: an engine that finds a
    thousand endpoints at once would otherwise speak of all of them in one moment, every minute.
    """

    def __init__(self, now: float, *, spread: float = 0.0) -> None:
        self._slice_at = now
        self._slice_ends = now + SLICE_SECONDS - spread * HEARTBEAT_SECONDS % SLICE_SECONDS
        self._slice_load = 0.0
        self._slice_requests = 0
        self._steady_at = now
        self._steady_load = 0.0
        self._steady_requests = 0
        self._told_at = now - spread * HEARTBEAT_SECONDS
        self._told: Arrivals | None = Arrivals()
        """The last arrivals that were told, as a rate; None: too short to be one, and the next full slice is news in any case."""
        self._told_level = Level()
        self._touched = False
        self._silent_too_long = False
        """At the end of the last slice a heartbeat was due."""
        self._urgent: dict[str, float] = {}
        self._urgent_said: dict[str, float] = {}
        self.last_request_at: float | None = None
        self._told_request_at: float | None = None
        """The last request that was told of."""

    def __repr__(self) -> str:
        return f"<MetricsBatcher {self._slice_requests} new, urgent {', '.join(self._urgent) or 'nothing'}>"

    def arrived(self, load: float, now: float) -> None:
        """A new request came in."""
        self._slice_load += load
        self._slice_requests += 1
        self.last_request_at = now

    def worked(self, now: float) -> None:
        """A request runs, or has just ended: the endpoint is idle from its end, not from its arrival."""
        self.last_request_at = now

    def touch(self) -> None:
        """Something besides load changed: tell it with the next regular batch."""
        self._touched = True

    def urge(self, cause: str, now: float) -> None:
        """Something happened that cannot wait."""
        if cause not in self._urgent:
            self._urgent[cause] = max(now, self._urgent_said.get(cause, -1e18) + URGENT_GAP_SECONDS)

    def urgent_at(self) -> float | None:
        """When the next urgent batch may go."""
        return min(self._urgent.values()) if self._urgent else None

    def due(self, level: Level, now: float) -> str | None:
        """Why a batch is due now: the urgent causes, or an empty text for a regular one; None: nothing is due.

        Asked twice it answers the same: only `take` makes it due no more.
        """
        ready = [cause for cause, at in self._urgent.items() if at <= now]
        if ready:
            return ", ".join(ready)
        if self._silent_too_long:
            return ""
        if now >= self._slice_ends:
            if self._touched or self._rate_changed(now) or self._level_changed(level):
                return ""
            self._close_slice(now)
            speaking = level.workers > 0 or level.waiting.requests > 0 or self._steady_requests > 0
            self._silent_too_long = speaking and now - self._told_at >= self._pause(level)
            if self._silent_too_long:
                return ""
        if now >= self._renewed_at(level.inactivity_timeout):
            return ""
        return None

    def rests_until(self, inactivity_timeout: float | None) -> float:
        """Until then `due` says that nothing is, whatever arrives or waits, unless something is urged meanwhile.

        So whoever looks after many endpoints need not ask each for its level again and again.
        """
        if self._silent_too_long:
            return -math.inf
        return min(self._slice_ends, self._renewed_at(inactivity_timeout), *self._urgent.values())

    def _renewed_at(self, inactivity_timeout: float | None) -> float:
        return renewed_at(self._told_request_at, self.last_request_at, inactivity_timeout)

    def _pause(self, level: Level) -> float:
        if level.waiting.requests:
            return QUEUE_HEARTBEAT_SECONDS
        asleep = level.workers_cold == level.workers and not self._steady_requests and not self._told_load
        return COLD_HEARTBEAT_SECONDS if asleep else HEARTBEAT_SECONDS

    def take(self, level: Level, now: float) -> list[Window]:
        """The arrivals not told yet, oldest first; they count as told.

        A steady stretch and what broke it are two windows: averaged over one, a burst would vanish in the calm
        before it.
        """
        windows = []
        steady = self._slice_at - self._steady_at
        if steady > 0 and (self._steady_requests or self._told_load):
            windows.append(Window(steady, self._steady_load, self._steady_requests, self._slice_at))
        current = max(0.0, now - self._slice_at)
        if current > 0 or self._slice_requests or not windows:
            windows.append(Window(current, self._slice_load, self._slice_requests, now))
        last = windows[-1]
        if last.seconds >= SLICE_SECONDS / 2:
            self._told = Arrivals(last.seconds, last.load, last.requests)
        elif last.requests:
            self._told = None
        self._slice_at = self._steady_at = self._told_at = now
        self._slice_ends = now + SLICE_SECONDS
        self._silent_too_long = False
        self._slice_load = self._steady_load = 0.0
        self._slice_requests = self._steady_requests = 0
        self._told_request_at = self.last_request_at
        self._told_level = level
        self._touched = False
        for cause in [cause for cause, at in self._urgent.items() if at <= now]:
            del self._urgent[cause]
            self._urgent_said[cause] = now
        return windows

    @property
    def _told_load(self) -> bool:
        """Whether what was told last was load, as far as can be said."""
        return self._told is None or self._told.load > 0

    def _rate_changed(self, now: float) -> bool:
        """This slice says so, or all slices since the last batch do: small steps add up."""
        told = self._told
        if told is None:
            return True
        load, requests = self._slice_load, self._slice_requests
        return arrivals_moved(told, Arrivals(now - self._slice_at, load, requests)) or arrivals_moved(
            told, Arrivals(now - self._steady_at, self._steady_load + load, self._steady_requests + requests)
        )

    def _level_changed(self, level: Level) -> bool:
        told = self._told_level
        if told.holding and not level.holding:
            return True  # the last request ended: who waits to stop the worker hears it
        return waiting_moved(told.waiting, level.waiting)

    def _close_slice(self, now: float) -> None:
        """The slice was like what was told: it joins the steady stretch."""
        self._steady_load += self._slice_load
        self._steady_requests += self._slice_requests
        self._slice_load, self._slice_requests = 0.0, 0
        self._slice_at, self._slice_ends = now, now + SLICE_SECONDS
