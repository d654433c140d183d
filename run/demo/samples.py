"""What the demo sees of the system, twice a second."""

from dataclasses import dataclass, field

HOT = frozenset({"idle"})
COLD = frozenset({"stopped"})
BOOTING = frozenset({"pending", "creating", "loading", "model_loading", "starting", "rebooting", "created"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look: the demo's own traffic beside the fleet as the engine's API shows it."""

    at_s: float
    load: float
    """Cost of the requests sent in the last 2 s, per second: tokens/s."""
    capacity: float
    """Summed perf of hot workers, tokens/s."""
    hot: int
    booting: int
    cold: int
    draining: int
    waiting: int
    """Requests sent and without a worker yet."""
    queue_s: float
    """How long the longest-waiting of them has waited."""
    dollars_per_hour: float
    phase: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One answered request."""

    sent_s: float
    tokens: int
    waited_s: float
    """For a worker, in the engine's queue."""
    queued_s: float
    """In the worker's own queue."""
    model_s: float
    total_s: float
    worker_id: int
    attempts: int


@dataclass(slots=True)
class Record:
    """Everything that the demo noted down."""

    samples: list[Sample] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    phases: list[tuple[float, str]] = field(default_factory=list)
    """When each phase began, s."""
