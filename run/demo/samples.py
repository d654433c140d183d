"""The demo's measurements."""

from dataclasses import dataclass, field

HOT = frozenset({"idle"})
COLD = frozenset({"stopped"})
BOOTING = frozenset({"pending", "creating", "loading", "model_loading", "starting", "rebooting", "created"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The demo's traffic, and the fleet from the engine's API, at one time."""

    at_s: float
    load: float
    """Cost of the requests sent in the last 2 s, in tokens/s."""
    capacity: float
    """Total perf of hot workers, tokens/s."""
    hot: int
    booting: int
    cold: int
    draining: int
    waiting: int
    """Requests without an answer."""
    queue_s: float
    """Age of the oldest of them."""
    dollars_per_hour: float
    phase: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One answered request."""

    tokens: int
    waited_s: float
    """Time in the engine's queue."""
    queued_s: float
    """Time in the worker's queue."""
    total_s: float
    worker_id: int
    attempts: int


@dataclass(slots=True)
class Record:
    """All measurements of the demo."""

    samples: list[Sample] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
