"""One endpoint in the engine's soft state: config and workers from the memo, requests that pass through this engine."""

import hmac
import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from engine.fleet_stats import FleetStats, gpu_dollars_per_hour
from engine.request_stats import RequestStats
from engine.routing.client_keys import ClientKeys
from engine.routing.failure_detection.broken_requests import BrokenRequests
from engine.routing.requests.request_queue import QueuedRequest, RequestQueue
from engine.routing.served_routes import ServedRoutes
from engine.routing.worker import KnownWorker
from engine.settings import Limits, Timing
from policy.routing.queue_discipline import late_cutoff, worker_wait_seconds
from policy.routing.service_time import ServiceTimes
from policy.routing.worker_selection import Candidate, PrefetchLimits, prefetch_limits
from policy.signalling.escalation import Escalation
from policy.signalling.metrics_batcher import Gauges, MetricsBatcher
from policy.signalling.significance import QueueState
from policy.tuning import DEFAULT_TUNING
from stoker_wire.control import workflow_id
from stoker_wire.endpoint import EndpointConfig, EndpointState
from stoker_wire.messages import EndpointMemo, WorkerMetrics
from stoker_wire.security.token import mint_endpoint_key
from stoker_wire.states import WorkerState

log = structlog.get_logger("engine.routing.endpoint")

_GOLDEN = 0.618034
"""Multiples of the golden ratio modulo 1 are evenly spread, so endpoints send their batches at different times."""


@dataclass(slots=True)
class EndpointCounters:
    """Counts since the start of this engine, for `/metrics`."""

    routes_given: int = 0
    routes_waiting: int = 0
    routes_limited: int = 0
    reroutes: int = 0
    waited_seconds: float = 0.0
    reports: int = 0
    requests_expired: int = 0
    tickets_expired: int = 0
    signals: dict[str, int] = field(default_factory=lambda: {"urgent": 0, "regular": 0})


@dataclass(frozen=True, slots=True)
class EndpointKey:
    """The endpoint's own key, which has no limits."""

    key: bytes
    valid_until: float
    """Unix seconds; infinite for the current key."""


class Endpoint:
    """Soft state, rebuilt from Temporal and the workers' next reports. No I/O; times are arguments, Unix seconds."""

    def __init__(
        self, memo: EndpointMemo, *, secrets: tuple[bytes, ...], timing: Timing, limits: Limits, now: float
    ) -> None:
        self._secrets = secrets
        self._timing = timing
        self._limits = limits
        self.memo = memo
        self.id = memo.id
        self.name = memo.name
        self.config = EndpointConfig()
        self.key = ""
        self._keys: list[EndpointKey] = []
        self.client_keys = ClientKeys()
        self.workers: dict[str, KnownWorker] = {}
        self.candidates: list[Candidate] = []
        """Routable workers with their current load."""
        self.request_queue = RequestQueue()
        self.waiting: dict[int, QueuedRequest] = {}
        """The queued requests by index."""
        # OrderedDict: removing the oldest key of a plain dict again and again scans the slots of removed keys.
        self.assigned: OrderedDict[int, QueuedRequest] = OrderedDict()
        """Requests that have a worker, oldest first. If the client asks again, that worker failed the request."""
        self.finished: OrderedDict[int, QueuedRequest] = OrderedDict()
        """Requests whose worker reported the end, oldest first."""
        self.metrics_batcher = MetricsBatcher(now, spread=memo.id * _GOLDEN % 1.0)
        self.counters = EndpointCounters()
        self.stats = RequestStats()
        self.fleet_stats = FleetStats()
        self.gone = False
        """The workflow is closed."""
        self.fault = ""
        """Why the endpoint makes no progress or cannot be read, for lists; empty: no fault."""
        self.deletion_sent = False
        """This engine has signalled the deletion; the memo shows it once a Temporal worker has handled the signal."""
        self.perf = 0.0
        """Summed load per second of the candidates."""
        self.load = 0.0
        """Summed outstanding load of the candidates."""
        self.waiting_load = 0.0
        """The part of it that waits, or would be served more slowly than the workers' perf."""
        self.escalation = Escalation()
        self.broken_requests = BrokenRequests()
        self.swept_at = self.sweeping_since = now
        """Time of the dispatcher's last sweep, and start of its uninterrupted series of sweeps."""
        self.served = ServedRoutes()
        self.service_times = ServiceTimes()
        """Real over declared duration of requests, learned from workers that run one request at a time."""
        self.end_report_seconds = 0.0
        """Longest time that a routable worker takes to report a request's end; 0: no worker promises one."""
        self._candidate_of: dict[str, Candidate] = {}
        self.apply(memo, now)

    def __repr__(self) -> str:
        state = self.config.endpoint_state.value
        workers = f"{len(self.candidates)} of {len(self.workers)} workers"
        return f"<Endpoint {self.name} {state}, {workers}, {self.request_queue!r}>"

    @property
    def deleting(self) -> bool:
        """Whether its deletion was ordered."""
        return self.memo.deleting or self.deletion_sent

    @property
    def stopped(self) -> bool:
        """Whether its owner stopped it."""
        return self.config.endpoint_state is EndpointState.STOPPED

    @property
    def workflow_id(self) -> str:
        """The id of its workflow."""
        return workflow_id(self.name)

    # -- inputs

    def apply(self, memo: EndpointMemo, now: float) -> None:
        """Apply a memo. If a newer workflow's config cannot be read, the last one stays in force."""
        self.memo = memo
        self.broken_requests.apply_shared(memo.b, now)
        try:
            self.config = EndpointConfig.model_validate(memo.config)
        except ValueError:
            log.error("config_unreadable", endpoint=memo.name, kept=repr(self.config)[:200])
        self.key = mint_endpoint_key(self._secrets[0], memo.id, memo.key_version)
        self._keys = self._valid_keys(memo.key_version, math.inf)
        if memo.key_overlap_until > now:
            self._keys += self._valid_keys(memo.key_version - 1, memo.key_overlap_until)
        if self.client_keys.apply(memo.keys, memo.engines, now):
            self._end_revoked_calls()
        listed = {member.l for member in memo.members}
        for launch_id in [known for known, worker in self.workers.items() if worker.listed]:
            if launch_id not in listed:
                del self.workers[launch_id]
        for member in memo.members:
            worker = self.workers.get(member.l)
            if worker is None:
                worker = self.workers[member.l] = KnownWorker(member.l)
            before = worker.listing if worker.listed else None
            if worker.apply_member(member, now):
                self.metrics_batcher.request_urgent("drain seen", now)
            if before is not None:
                self.fleet_stats.change_state(before, worker.listing)
        listings = [worker.listing for worker in self.workers.values() if worker.listed]
        self.fleet_stats.change_price(gpu_dollars_per_hour(listings), now)

    def _valid_keys(self, version: int, until: float) -> list[EndpointKey]:
        return [
            EndpointKey(mint_endpoint_key(secret, self.id, version).encode(), until)
            for secret in self._secrets
        ]

    def accepts_key(self, key: str, now: float) -> bool:
        """Whether this is a valid key of the endpoint; the previous one is valid until its overlap ends."""
        shown = key.encode("utf-8", "surrogateescape")
        accepted = False
        for each in self._keys:  # all of them, so that the time tells nothing
            accepted |= hmac.compare_digest(each.key, shown) and now < each.valid_until
        return accepted

    def _end_revoked_calls(self) -> None:
        """Held calls of revoked keys end; the caller answers 401."""
        for request in self.request_queue.held():
            wake = request.wake
            if request.account is not None and request.account.revoked and wake is not None:
                self.request_queue.end_hold(request)
                wake(False)

    def worker(self, launch_id: str) -> KnownWorker | None:
        """The worker of this launch; None: too many unlisted workers. The memo may lag, so some are accepted."""
        worker = self.workers.get(launch_id)
        if worker is None and len(self.workers) < len(self.memo.members) + self._limits.workers_unlisted_max:
            worker = self.workers[launch_id] = KnownWorker(launch_id)
        return worker

    def refresh(self, now: float, *, trust_memo: bool) -> None:
        """Recompute the candidates after a worker changed, and periodically because reports expire."""
        timing, service_times = self._timing, self.service_times
        workers = [w for w in self.workers.values() if w.is_routable(now, timing, trust_memo=trust_memo)]
        self.candidates = [candidate_of(worker, service_times) for worker in workers]
        self.end_report_seconds = max((worker.report.end_report_seconds for worker in workers), default=0.0)
        self._candidate_of = {candidate.launch_id: candidate for candidate in self.candidates}
        self.perf = sum(candidate.perf for candidate in self.candidates)
        self.load = sum(candidate.outstanding for candidate in self.candidates)
        self.waiting_load = self.load - sum(candidate.served for candidate in self.candidates)

    def update_load(self, worker: KnownWorker) -> None:
        """The worker's outstanding load changed."""
        candidate = self._candidate_of.get(worker.launch_id)
        if candidate is not None:
            before, served = candidate.outstanding, candidate.served
            worker.fill_candidate(candidate, self.service_times)
            change = candidate.outstanding - before
            self.load += change
            self.waiting_load += change - (candidate.served - served)

    # -- queue

    @property
    def prefetch(self) -> PrefetchLimits | None:
        """How early busy workers get their next request; None: no worker reports its progress."""
        if self.end_report_seconds <= 0:
            return None
        return prefetch_limits(
            self.service_times,
            end_report_seconds=self.end_report_seconds,
            queue_seconds_max=worker_wait_seconds(self.config.target_queue_time),
        )

    def late_cutoff(self, now: float) -> float:
        """Requests that arrived before this time yield to requests that can still meet the target queue time."""
        return late_cutoff(now, self.config.target_queue_time)

    @property
    def queue_seconds(self) -> float:
        """Expected queue time; infinite while requests wait and no worker is routable."""
        if self.perf <= 0:
            return math.inf if self.request_queue else 0.0
        return (self.request_queue.load + max(0.0, self.waiting_load)) / self.perf

    # -- metrics for the workflow

    def gauges(self) -> Gauges:
        """The current values that a batch contains besides arrivals."""
        queue_seconds, target = self.queue_seconds, self.config.target_queue_time
        return Gauges(
            queue=QueueState.of(len(self.request_queue), queue_seconds, target),
            workers=len(self.workers),
            holding=any(worker.holds for worker in self.workers.values()),
            inactivity_timeout=self.config.inactivity_timeout,
            workers_cold=sum(w.listing.state is WorkerState.INACTIVE for w in self.workers.values()),
        )

    def changed_workers(self, now: float) -> tuple[WorkerMetrics, ...]:
        """The workers for the next batch: changed ones, and each one once per `Tuning.worker_repeat_seconds`.

        Every batch contains workers that drain or have open tickets: the workflow reads a missing one as finished.
        """
        changed = []
        for worker in self._active_workers():
            snapshot = worker.snapshot()
            required = (
                worker.listing.draining or worker.contradicts_workflow or worker.outstanding.tickets_open > 0
            )
            if (
                snapshot == worker.sent
                and now - worker.sent_at < DEFAULT_TUNING.worker_repeat_seconds
                and not required
            ):
                continue
            worker.sent, worker.sent_at = snapshot, now
            changed.append(worker.metrics())
        return tuple(changed)

    def _active_workers(self) -> Iterable[KnownWorker]:
        for worker in self.workers.values():
            if (
                worker.report.reported_at > 0
                or worker.outstanding.tickets_open
                or worker.listing.draining
                or worker.suspicion.since
            ):
                yield worker


def candidate_of(worker: KnownWorker, service_times: ServiceTimes) -> Candidate:
    """The worker as the worker selection sees it."""
    candidate = Candidate(worker.launch_id, perf=worker.trusted_perf)
    worker.fill_candidate(candidate, service_times)
    return candidate
