"""Urgent events and the decisions that answer them, by one clock."""

import time
from collections import defaultdict
from dataclasses import dataclass, field

from benchmarks.scale.market import Called

ANSWERS = {"wake": ("start",), "grow": ("create", "start"), "error": ("reboot", "destroy")}
"""The marketplace call that answers each kind of event."""


@dataclass(slots=True)
class Event:
    """One urgent event that was sent to the engine."""

    kind: str
    endpoint: str
    at: float
    answered_at: float | None = None


@dataclass
class Events:
    """At most one open event per endpoint."""

    all: list[Event] = field(default_factory=list)
    _open: dict[str, Event] = field(default_factory=dict)

    def happened(self, kind: str, endpoint: str) -> None:
        """Records the event, just before it is sent to the engine."""
        event = Event(kind, endpoint, time.time())
        self.all.append(event)
        self._open[endpoint] = event

    def called(self, call: Called) -> None:
        """Records the marketplace call that answers an event."""
        event = self._open.get(call.endpoint)
        if event is not None and call.what in ANSWERS[event.kind]:
            event.answered_at = call.at
            del self._open[call.endpoint]

    @property
    def open(self) -> list[Event]:
        """Events without a decision so far."""
        return list(self._open.values())

    def seconds(self) -> dict[str, list[float]]:
        """Decision latencies by kind, sorted; `all` has them all."""
        taken: dict[str, list[float]] = defaultdict(list)
        for event in self.all:
            if event.answered_at is not None:
                for name in (event.kind, "all"):
                    taken[name].append(event.answered_at - event.at)
        return {name: sorted(values) for name, values in taken.items()}
