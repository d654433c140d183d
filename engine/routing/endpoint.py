"""One endpoint as this engine knows it: config and members from the memo, and what passes through this engine."""

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from engine.api.keys import same_key
from engine.routing.broken_requests import Breakages
from engine.routing.request_queue import QueuedRequest, RequestQueue
from engine.routing.worker import KnownWorker
from engine.settings import Limits, Timing
from policy.routing.queue_discipline import late_cutoff, worker_wait_seconds
from policy.routing.service_time import ServiceTimes
from policy.routing.worker_selection import Candidate, PrefetchLimits, prefetch_limits
from policy.signalling.escalation import Escalation
from policy.signalling.metrics_batcher import Gauges, MetricsBatcher
from policy.signalling.significance import QueueState
from stoker_wire.control import workflow_id
from stoker_wire.endpoint import EndpointConfig, EndpointState
from stoker_wire.messages import EndpointMemo, WorkerMetrics
from stoker_wire.security.token import mint_endpoint_key
from stoker_wire.states import WorkerState

log = structlog.get_logger("engine.routing.endpoint")

_GOLDEN = 0.618034
"""Its multiples fall evenly between 0 and 1."""

TOLD_AGAIN_SECONDS = 30.0
"""A worker without news is mentioned again after this time, so that the workflow knows it alive."""


@dataclass(slots=True)
class EndpointCounters:
    """Counts since this engine started, for `/metrics`."""

    routes_given: int = 0
    routes_waiting: int = 0
    reroutes: int = 0
    waited_seconds: float = 0.0
    reports: int = 0
    places_expired: int = 0
    tickets_expired: int = 0
    signals: dict[str, int] = field(default_factory=lambda: {"urgent": 0, "regular": 0})


class Endpoint:
    """Soft state, rebuilt from Temporal and the workers' next reports. Holds no I/O; every method takes the time."""

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
        self._keys: list[tuple[bytes, float]] = []
        """Keys that open it, each with the time until which it does."""
        self.workers: dict[str, KnownWorker] = {}
        self.candidates: list[Candidate] = []
        """Whom the next request may go to, with their load kept up to date."""
        self.line = RequestQueue()
        self.waiting: dict[int, QueuedRequest] = {}
        # Ordered, not plain: taking the oldest of a plain dict again and again walks over what was taken before.
        self.given: OrderedDict[int, QueuedRequest] = OrderedDict()
        """Requests that were given a worker, oldest first: one that comes again was failed by it."""
        self.ended: OrderedDict[int, QueuedRequest] = OrderedDict()
        self.batcher = MetricsBatcher(now, spread=memo.id * _GOLDEN % 1.0)
        self.tally = EndpointCounters()
        self.gone = False
        """Its workflow is closed."""
        self.fault = ""
        """What is wrong with the endpoint itself, for lists: its workflow makes no progress, or its memo is not readable."""
        self.deletion_sent = False
        """This engine has sent the deletion; the memo says so only once a Temporal worker has taken it up."""
        self.perf = 0.0
        """Load per second of all that can be routed to."""
        self.load = 0.0
        """Load that those hold."""
        self.escalation = Escalation()
        self.breakages = Breakages()
        """Requests that were on workers that broke."""
        self.swept_at = self.awake_since = now
        """When the router last looked after it, and since when it does so without a gap."""
        self.service_times = ServiceTimes()
        """What requests take beside what they declare, as far as workers that take one at a time have shown."""
        self.end_report_seconds = 0.0
        """The longest that one of those may keep an end to itself."""
        self._candidate_of: dict[str, Candidate] = {}
        self.apply(memo, now)

    def __repr__(self) -> str:
        return f"<Endpoint {self.name} {self.config.endpoint_state.value}, {len(self.candidates)} of {len(self.workers)} workers, {self.line!r}>"

    @property
    def deleting(self) -> bool:
        """Whether its deletion was ordered."""
        return self.memo.deleting or self.deletion_sent

    @property
    def workflow_id(self) -> str:
        """The id of its workflow."""
        return workflow_id(self.name)

    # -- news

    def apply(self, memo: EndpointMemo, now: float) -> None:
        """Take over a memo; an unreadable config of a newer workflow leaves the last one in force."""
        self.memo = memo
        try:
            self.config = EndpointConfig.model_validate(memo.config)
        except ValueError:
            log.error("config_unreadable", endpoint=memo.name, kept=repr(self.config)[:200])
        self.key = mint_endpoint_key(self._secrets[0], memo.id, memo.key_version)
        self._keys = [
            (mint_endpoint_key(secret, memo.id, memo.key_version).encode(), math.inf)
            for secret in self._secrets
        ]
        if memo.key_overlap_until > now:
            self._keys += [
                (mint_endpoint_key(secret, memo.id, memo.key_version - 1).encode(), memo.key_overlap_until)
                for secret in self._secrets
            ]
        listed = {member.l for member in memo.members}
        for launch_id in [known for known, worker in self.workers.items() if worker.listed]:
            if launch_id not in listed:
                del self.workers[launch_id]
        for member in memo.members:
            worker = self.workers.get(member.l)
            if worker is None:
                worker = self.workers[member.l] = KnownWorker(member.l)
            if worker.list_as(member, now):
                self.batcher.request_urgent("drain seen", now)

    def opened_by(self, key: str, now: float) -> bool:
        """Whether this is a key of the endpoint; one that was rotated with an overlap is for so long."""
        return any(same_key(known, key) and now < until for known, until in self._keys)

    def worker(self, launch_id: str) -> KnownWorker | None:
        """The worker of this launch; one not listed yet is taken up, within bounds, because the memo may lag."""
        worker = self.workers.get(launch_id)
        if worker is None and len(self.workers) < len(self.memo.members) + self._limits.workers_unlisted_max:
            worker = self.workers[launch_id] = KnownWorker(launch_id)
        return worker

    def refresh(self, now: float, *, trust_memo: bool) -> None:
        """Who can be given a request now; after any news of a worker, and as reports grow old."""
        workers = [w for w in self.workers.values() if w.routable(now, self._timing, trust_memo=trust_memo)]
        self.candidates = [candidate_of(worker, self.service_times) for worker in workers]
        self.end_report_seconds = max((worker.end_report_seconds for worker in workers), default=0.0)
        self._candidate_of = {candidate.launch_id: candidate for candidate in self.candidates}
        self.perf = sum(candidate.perf for candidate in self.candidates)
        self.load = sum(candidate.outstanding for candidate in self.candidates)

    def reweigh(self, worker: KnownWorker) -> None:
        """The worker's load moved."""
        candidate = self._candidate_of.get(worker.launch_id)
        if candidate is not None:
            before = candidate.outstanding
            worker.weigh(candidate, self.service_times)
            self.load += candidate.outstanding - before

    @property
    def prefetch(self) -> PrefetchLimits | None:
        """How far ahead busy workers are given the next in the line; None: whatever they hold."""
        if self.end_report_seconds <= 0:
            return None
        return prefetch_limits(
            self.service_times,
            end_report_seconds=self.end_report_seconds,
            queue_seconds_max=worker_wait_seconds(self.config.target_queue_time),
        )

    def late_cutoff(self, now: float) -> float:
        """Who waits since before that lets those pass who can still be served in time."""
        return late_cutoff(now, self.config.target_queue_time)

    # -- what follows from it

    @property
    def queue_seconds(self) -> float:
        """Expected queue time over the endpoint; infinite while requests wait and nobody works."""
        if self.perf <= 0:
            return math.inf if self.line else 0.0
        return (self.line.load + self.load) / self.perf

    def gauges(self) -> Gauges:
        """What there is to say besides arrivals."""
        return Gauges(
            queue=QueueState.of(len(self.line), self.queue_seconds, self.config.target_queue_time),
            workers=len(self.workers),
            holding=any(worker.holds for worker in self.workers.values()),
            inactivity_timeout=self.config.inactivity_timeout,
            workers_cold=sum(worker.state is WorkerState.INACTIVE for worker in self.workers.values()),
        )

    @property
    def stopped(self) -> bool:
        """Whether its owner stopped it."""
        return self.config.endpoint_state is EndpointState.STOPPED

    def news_of_workers(self, now: float) -> tuple[WorkerMetrics, ...]:
        """What the next batch says of the workers: those with news, and each now and then.

        Those that drain or have open tickets are in every batch: one without them says that there are none.
        """
        said = []
        for worker in self._speaking():
            news = worker.news()
            binding = worker.draining or worker.disagrees or worker.ledger.tickets_open > 0
            if news == worker.told and now - worker.told_at < TOLD_AGAIN_SECONDS and not binding:
                continue
            worker.told, worker.told_at = news, now
            said.append(worker.metrics())
        return tuple(said)

    def _speaking(self) -> Iterable[KnownWorker]:
        for worker in self.workers.values():
            if worker.heard_at > 0 or worker.ledger.tickets_open or worker.draining or worker.suspect_since:
                yield worker


def candidate_of(worker: KnownWorker, service_times: ServiceTimes) -> Candidate:
    """The worker as the routing policy sees it."""
    candidate = Candidate(worker.launch_id, perf=worker.believed_perf)
    worker.weigh(candidate, service_times)
    return candidate
