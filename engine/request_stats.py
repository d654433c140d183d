"""An endpoint's requests at this engine: histograms of their times, and the last requests."""

from bisect import bisect_left
from collections import defaultdict, deque
from dataclasses import dataclass, field
from math import ceil, log2
from typing import Any

NATIVE_SCHEMA = 3
"""A native bucket ends at 2^(1/8) times the end of the one before: its values differ by 9 % at most."""
NATIVE_ZERO_SECONDS = 2.0**-10
"""Shorter durations are in the zero bucket."""
_NATIVE_PER_DOUBLING = 1 << NATIVE_SCHEMA
_NATIVE_SECONDS_MAX = 2.0**18
"""Longer durations are in the bucket of 73 hours."""

BUCKET_SECONDS = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
)
"""Upper bounds of the histogram buckets; a last bucket takes everything longer."""

GPUS_MAX = 20
"""Kinds of GPU with histograms of their own."""
OTHER_GPUS = "other"

RECENT_MAX = 100
SLOW_MAX = 20
FAILED_MAX = 50
DONE = "done"
_FAULTS = frozenset({"failed", "expired", "turned_away"})
_CHECKPOINT_SECONDS = 10.0
_CHECKPOINTS = 7
_SLOW_SECONDS = 3600.0
"""How long a slow request is listed."""


@dataclass(slots=True)
class Histogram:
    """Counts of durations by bucket, since the start of this engine."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKET_SECONDS) + 1))
    """One per bucket, not cumulative."""
    native: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    """Counts by the index of the native bucket; bucket n ends at 2^(n / 8) s."""
    native_zero: int = 0
    seconds: float = 0.0
    """Sum of all durations."""
    last: dict[int, tuple[int, float]] = field(default_factory=dict)
    """The last request of each bucket, by index, and its duration: OpenMetrics calls it an exemplar."""
    written: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """As it was written last, by format and label: most endpoints have no request between two scrapes."""

    def observe(self, seconds: float, request_idx: int = 0) -> None:
        """Count one duration, of this request if it is known."""
        self.written.clear()
        bucket = bisect_left(BUCKET_SECONDS, seconds)
        self.counts[bucket] += 1
        self.seconds += seconds
        if seconds > NATIVE_ZERO_SECONDS:
            self.native[ceil(log2(min(seconds, _NATIVE_SECONDS_MAX)) * _NATIVE_PER_DOUBLING)] += 1
        else:
            self.native_zero += 1
        if request_idx:
            self.last[bucket] = (request_idx, seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedRequest:
    """A request that ended, and where its time went."""

    request_idx: int
    arrived_at: float
    """Unix seconds."""
    cost: float
    waited_s: float
    """In the engine's queue, until the first assignment."""
    took_s: float
    """At the worker, until its report of the end arrived; 0: it had no worker."""
    busy_s: float
    """Of this, the time in the model; 0: the worker does not report it."""
    queued_s: float = 0.0
    """Of this, the time in the worker's queue."""
    first_byte_s: float = 0.0
    """Of this, until the first bytes of the answer; 0: the worker does not report it."""
    launch_id: str
    """The worker; empty: it had none."""
    gpu: str = ""
    """The worker's GPUs, such as `1x RTX 4090`; empty: unknown."""
    outcome: str

    @property
    def total_s(self) -> float:
        """From arrival to the end."""
        return self.waited_s + self.took_s


@dataclass(slots=True)
class WorkerTimes:
    """Times of successful requests on one kind of GPU."""

    queued: Histogram = field(default_factory=Histogram)
    """In the worker's queue."""
    model: Histogram = field(default_factory=Histogram)
    first_byte: Histogram = field(default_factory=Histogram)
    """From arrival at the engine to the first bytes of the answer."""
    total: Histogram = field(default_factory=Histogram)
    """From arrival at the engine to the worker's report of the end."""


@dataclass(slots=True)
class RequestStats:
    """Histograms since the engine's start, and bounded lists of the last, slowest and failed requests."""

    arrived_requests: int = 0
    arrived_load: float = 0.0
    waited: Histogram = field(default_factory=Histogram)
    """Time in the engine's queue, of requests that got a worker."""
    took: Histogram = field(default_factory=Histogram)
    """From assignment to the worker's report of a successful end."""
    by_gpu: dict[str, WorkerTimes] = field(default_factory=dict)
    """By kind of GPU, of which there are few."""
    outcomes: dict[str, int] = field(default_factory=dict)
    gpu_dollars_used: float = 0.0
    """Price of the GPU time that served requests needed, at their worker's perf."""
    recent: deque[EndedRequest] = field(default_factory=lambda: deque(maxlen=RECENT_MAX))
    failed: deque[EndedRequest] = field(default_factory=lambda: deque(maxlen=FAILED_MAX))
    slow: list[EndedRequest] = field(default_factory=list)
    """The slowest of the last hour, slowest first."""
    _checkpoints: deque[tuple[float, int, float]] = field(default_factory=lambda: deque(maxlen=_CHECKPOINTS))
    """Time, arrived requests and arrived load every ten seconds of the last minute."""

    def arrive(self, cost: float) -> None:
        """A request arrived for the first time."""
        self.arrived_requests += 1
        self.arrived_load += cost

    def tick(self, now: float) -> None:
        """Called about once a second, for `rates`."""
        if not self._checkpoints or now - self._checkpoints[-1][0] >= _CHECKPOINT_SECONDS:
            self._checkpoints.append((now, self.arrived_requests, self.arrived_load))

    def rates(self, now: float) -> tuple[float, float]:
        """Requests and load per second over the last minute, or since the start if that is shorter."""
        if not self._checkpoints:
            return 0.0, 0.0
        at, requests, load = self._checkpoints[0]
        seconds = max(now - at, _CHECKPOINT_SECONDS)
        return (self.arrived_requests - requests) / seconds, (self.arrived_load - load) / seconds

    def end(self, ended: EndedRequest) -> None:
        """A request ended."""
        self.outcomes[ended.outcome] = self.outcomes.get(ended.outcome, 0) + 1
        self.recent.append(ended)
        if ended.outcome in _FAULTS:
            self.failed.append(ended)
        elif ended.outcome == DONE:
            self.took.observe(ended.took_s, ended.request_idx)
            self._observe_on_gpu(ended)
            if len(self.slow) < SLOW_MAX or ended.total_s > self.slow[-1].total_s:
                self._add_slow(ended)

    def _observe_on_gpu(self, ended: EndedRequest) -> None:
        kind = ended.gpu if ended.gpu in self.by_gpu or len(self.by_gpu) < GPUS_MAX else OTHER_GPUS
        times = self.by_gpu.setdefault(kind, WorkerTimes())
        times.total.observe(ended.total_s, ended.request_idx)
        if ended.busy_s > 0:
            times.queued.observe(ended.queued_s, ended.request_idx)
            times.model.observe(ended.busy_s, ended.request_idx)
        if ended.first_byte_s > 0:
            times.first_byte.observe(ended.waited_s + ended.first_byte_s, ended.request_idx)

    def _add_slow(self, ended: EndedRequest) -> None:
        oldest = ended.arrived_at + ended.total_s - _SLOW_SECONDS
        kept = [known for known in self.slow if known.arrived_at + known.total_s >= oldest]
        kept.append(ended)
        kept.sort(key=lambda known: -known.total_s)
        self.slow = kept[:SLOW_MAX]
