"""One worker as this engine knows it: what the memo lists, what it reported, what was routed to it."""

import math
from typing import TYPE_CHECKING, Any

from engine.routing.outstanding import OutstandingLoad
from engine.settings import Timing
from policy.routing.service_time import ServiceTimes
from policy.routing.worker_selection import Candidate
from policy.state.incarnation import LATE_SECONDS, Process
from stoker_wire.messages import Condition, Member, WorkerMetrics
from stoker_wire.states import WorkerState
from stoker_wire.worker_status import WorkerStatus

if TYPE_CHECKING:
    from engine.routing.request_queue import QueuedRequest

UNROUTABLE = frozenset(
    {
        WorkerState.STOPPING,
        WorkerState.INACTIVE,
        WorkerState.ERROR,
        WorkerState.DESTROYING,
        WorkerState.REBOOTING,
        WorkerState.UPDATE_READY,
        WorkerState.UPDATE_REBOOTING,
        WorkerState.UPDATE_STARTING,
    }
)
"""States in which the workflow wants nothing sent to the worker, whatever it reports."""

_RESTARTING = frozenset({WorkerState.REBOOTING, WorkerState.UPDATE_REBOOTING, WorkerState.UPDATE_STARTING})
"""Of those, the ones that a report of being ready ends."""

_TOLD_TO_END = frozenset({WorkerState.STOPPING, WorkerState.INACTIVE, WorkerState.DESTROYING})
"""Of those, the ones in which no report is expected."""

STRIKES_FREE = 2
"""Failures in a row that only cost the wait for the next report; each further one doubles a pause."""
PENALTY_SECONDS_MAX = 30.0
UNHEARD_SUSPECT_SECONDS = 20.0
"""Its reports go to other engines, so none of them clears the suspicion here; by then the workflow knows better."""


_MEMO_ROUNDING = 0.006
"""The memo has three digits of a perf."""

_OVER_MEMO_MAX = 1.25
"""A worker that benchmarks itself anew may be a little faster at once."""

_LATELY_MAX = 1000
_LATELY_SECONDS = 60.0

OWN_VERSION = "stoker-"
"""What the version of stoker's own worker starts with."""


class KnownWorker:
    """Soft state: lost with the engine, rebuilt from the memo at once and from reports within seconds."""

    __slots__ = (
        "broke_at",
        "broke_by",
        "broke_state_since",
        "drain_said",
        "drain_seen_at",
        "draining",
        "end_report_seconds",
        "error",
        "heard_at",
        "in_flight",
        "instance_id",
        "kind",
        "lately",
        "launch_id",
        "leaving",
        "ledger",
        "left",
        "listed",
        "loadtime_s",
        "memo_address",
        "memo_error",
        "memo_official",
        "memo_perf",
        "memo_url",
        "out_until",
        "perf",
        "price",
        "process",
        "queued",
        "received",
        "running_load",
        "running_since",
        "sealed",
        "secret",
        "since",
        "state",
        "status",
        "strikes",
        "suspect_since",
        "told",
        "told_at",
        "update_pending",
        "url",
        "workergroup_id",
    )

    def __init__(self, launch_id: str) -> None:
        self.launch_id = launch_id
        self.instance_id = 0
        self.workergroup_id = 0
        self.state = WorkerState.PENDING
        self.since = 0.0
        self.listed = False
        """Whether the endpoint's memo names it: only then it is a member."""
        self.draining = False
        self.drain_seen_at = 0.0
        self.drain_said = False
        """Whether `drained` was already called urgent for this drain."""
        self.memo_perf = 0.0
        self.memo_url = ""
        self.memo_address = ""
        """Where the marketplace says that it is, `host:port,port…`; empty: not said yet."""
        self.memo_error = ""
        self.memo_official = False
        self.price = 0.0
        self.kind = ""
        self.update_pending = False
        self.heard_at = 0.0
        """When its last report arrived; 0: never, or not since its process was stopped."""
        self.process = Process()
        """The process that its reports come from."""
        self.url = ""
        self.perf = 0.0
        self.loadtime_s = 0.0
        self.in_flight = 0
        self.queued = 0
        self.end_report_seconds = 0.0
        """It takes one request at a time and tells of an end within so many seconds; 0: it does not say so."""
        self.running_load = 0.0
        """Of the request that it was at when it last reported."""
        self.running_since = 0.0
        self.error = ""
        self.leaving = False
        """It said itself that it takes no more, for instance because it was told to terminate."""
        self.left = False
        """It is leaving although nobody of ours wanted that: the marketplace stops it, or somebody does by hand."""
        self.received = 0
        self.sealed = ""
        """The launch's signing key as it stands in the path that it reports on; empty: it reports on the common one."""
        self.secret: bytes | None = None
        """The deployment's secret that its token was made with, once it has shown one: it may be the previous one."""
        self.status: WorkerStatus | None = None
        """The last report as it came, for the console's tables."""
        self.suspect_since: float | None = None
        self.strikes = 0
        self.out_until = 0.0
        self.ledger = OutstandingLoad()
        self.broke_at = -math.inf
        """When it last broke: an error while it was well, a restart of its process, or silence."""
        self.broke_by = ""
        self.broke_state_since = 0.0
        """`since` of the state in which its workflow last called it broken."""
        self.lately: dict[str, tuple[float, QueuedRequest, bool]] = {}
        """Requests that left it unserved, by `QueuedRequest.key`: when, and whether the worker itself reported that they failed."""
        self.told: tuple[Any, ...] = ()
        """What the last batch said of it, to say only what is new."""
        self.told_at = 0.0

    def __repr__(self) -> str:
        mark = " draining" if self.draining else ""
        mark += " suspect" if self.suspect_since is not None else ""
        return f"<KnownWorker {self.launch_id} {self.state.printed}{mark}, {self.ledger.outstanding:g} load>"

    # -- what it is told

    def list_as(self, member: Member, now: float) -> bool:
        """Take over what the memo says; answers whether a drain began."""
        self.listed = True
        self.instance_id = member.i or self.instance_id
        self.workergroup_id = member.g
        restarted = member.s is not self.state and (
            member.s in UNROUTABLE or (member.s is WorkerState.STARTING and self.heard_at <= member.t)
        )
        ends = member.s is not self.state and (member.s in _RESTARTING or member.s in _TOLD_TO_END)
        self.state, self.since = member.s, member.t
        self.memo_perf, self.memo_url, self.memo_error = member.p, member.u, member.e
        self.price, self.kind, self.update_pending = member.c, member.k, bool(member.n)
        self.memo_address, self.memo_official = member.a, bool(member.o)
        if not self.may_be_at(self.url):
            self._forget_report()  # said before the marketplace had given its word
        if restarted:
            self._forget_report()
        if ends and member.s is not WorkerState.UPDATE_STARTING:
            self._process_ends(now)
        drain_begins = member.d and not self.draining
        if drain_begins:
            self.drain_seen_at, self.drain_said = now, False
        self.draining = member.d
        return drain_begins

    def is_late(self, status: WorkerStatus, now: float) -> bool:
        """Whether a report comes from an earlier process of the worker: it says nothing of the current one."""
        if self.state in _TOLD_TO_END and self.heard_at <= 0:
            known = bool(status.process) and status.process not in self.process.ended
            return not known and self.process.ended_at > 0 and now <= self.process.ended_at + LATE_SECONDS
        awaits = self.state in _RESTARTING and self.heard_at <= 0
        return self.process.is_late(
            status.process,
            _started_at(status, now),
            reported_at=now,
            quiet_since=None if awaits else max(self.heard_at, self.process.ended_at),
        )

    def hear(self, status: WorkerStatus, url: str, now: float) -> None:
        """Take over a report that was authenticated and checked, and that is not late."""
        if self.process.is_replaced_by(status.process):
            self._process_ends(now)
            self._forget_report()
        self.process = self.process.heard(status.process, _started_at(status, now))
        self.heard_at = now
        self.instance_id = self.instance_id or status.id
        self.url = url
        self.perf = status.max_perf
        self.loadtime_s = status.loadtime
        self.in_flight = status.num_requests_working
        self.queued = status.queued
        self.end_report_seconds = status.ends_told_seconds
        self.running_load = status.running_load
        self.running_since = now - status.running_seconds
        self.error = status.error_msg
        self.leaving = status.draining
        self.received = status.num_requests_recieved
        self.status = status
        left_before = self.suspect_since if self.left else None
        self.left = status.draining and not self.draining and self.state not in UNROUTABLE
        self.suspect_since = (left_before or now) if self.left else None
        self.ledger.report(status.cur_load, status.working_request_idxs, now)

    def began_after(self, moment: float) -> bool:
        """Whether the process that is heard started after this moment: what failed before is not its fault."""
        return self.process.started_at > moment or self.process.ended_at > moment

    def record_failure(self, now: float) -> None:
        """A request failed on it: out of rotation until it next reports, and longer if that happens in a row."""
        if self.suspect_since is None:
            self.suspect_since = now
        self.strikes += 1
        if self.strikes > STRIKES_FREE:
            pause = min(PENALTY_SECONDS_MAX, 0.25 * 2.0 ** (self.strikes - STRIKES_FREE))
            self.out_until = now + pause

    def record_success(self) -> None:
        """A request succeeded on it."""
        self.strikes = 0
        self.out_until = 0.0

    def _process_ends(self, now: float) -> None:
        """What clients said of the process is not about the next one."""
        self.process = self.process.ordered_to_end(now)
        self.suspect_since, self.left = None, False
        self.record_success()

    def _forget_report(self) -> None:
        """Its process is stopping or restarting: what the old one said is no news of the next."""
        self.heard_at = 0.0
        self.in_flight = self.queued = 0
        self.end_report_seconds = self.running_load = 0.0
        self.error = ""
        self.leaving = self.left = False
        self.loadtime_s = 0.0
        self.status = None
        self.told = ()
        self.ledger.clear_report()

    def restarted(self, status: WorkerStatus) -> bool:
        """Whether this report is of another process than the last one, although nobody wanted that."""
        if self.heard_at <= 0 or self.state in UNROUTABLE or self.draining or self.leaving:
            return False
        if status.incarnation and self.process.id:
            return self.process.is_replaced_by(status.incarnation)
        return status.num_requests_recieved < self.received

    def leave_unserved(self, place: "QueuedRequest", now: float, *, reported: bool) -> None:
        """A request left it without having been served, by its own report or by its client's word."""
        if len(self.lately) >= _LATELY_MAX:
            self.lately = {key: left for key, left in self.lately.items() if now - left[0] < _LATELY_SECONDS}
        if len(self.lately) < _LATELY_MAX:
            self.lately[place.key] = (now, place, reported)

    # -- what follows from it

    def fresh(self, now: float, timing: Timing) -> bool:
        """Whether it reported lately."""
        return self.heard_at > 0 and now - self.heard_at <= timing.report_fresh_seconds

    def reports_ready(self, now: float, timing: Timing) -> bool:
        """Loaded, benchmarked and without error, by its own fresh report."""
        return self.fresh(now, timing) and self.loadtime_s > 0 and self.perf > 0 and not self.error

    def _suspected(self, now: float) -> bool:
        """Until it reports; one that reports to other engines only is tried again after a while."""
        since = self.suspect_since
        return since is not None and (self.heard_at > 0 or now - since < UNHEARD_SUSPECT_SECONDS)

    def routable(self, now: float, timing: Timing, *, trust_memo: bool) -> bool:
        """Whether it may be given a request now."""
        if not self.listed or self.draining or self._suspected(now) or now < self.out_until:
            return False
        if self.state in UNROUTABLE or self.leaving:
            return False
        if self.fresh(now, timing):
            return self.reports_ready(now, timing) and bool(self.url)
        if not trust_memo or self.state is not WorkerState.READY or self.memo_perf <= 0 or not self.memo_url:
            return False
        # An official worker looks at its launch's signature alone, which takes the key in the path that it reports on.
        return self.may_be_at(self.memo_url) and (bool(self.sealed) or not self.memo_official)

    @property
    def host(self) -> str:
        """The host at which the marketplace says that it is, brackets of an IPv6 address kept; empty: not said."""
        return self.memo_address.rpartition(":")[0]

    def may_be_at(self, url: str) -> bool:
        """Whether the marketplace's word on its address, if there is one, allows this url."""
        if not self.memo_address or not url:
            return True
        host, _, ports = self.memo_address.rpartition(":")
        said, colon, port = url.partition("://")[2].rpartition(":")
        if not colon or not port.isdigit():
            said, port = url.partition("://")[2], "443" if url.startswith("https:") else "80"
        return said.lower() == host.lower() and (not ports or port in ports.split(","))

    @property
    def official(self) -> bool:
        """Whether it is the official package's worker."""
        return self.memo_official if self.status is None else not self.status.version.startswith(OWN_VERSION)

    @property
    def route_url(self) -> str:
        """Where its requests go."""
        return self.url if self.heard_at > 0 else self.memo_url

    @property
    def route_perf(self) -> float:
        """Load per second that it says that it does."""
        return self.perf if self.heard_at > 0 else self.memo_perf

    def weigh(self, candidate: Candidate, service_times: ServiceTimes) -> None:
        """Tell the routing policy what it holds, and where it is said, how far it has got."""
        ledger, within = self.ledger, self.end_report_seconds
        candidate.outstanding = ledger.outstanding
        if within <= 0:
            candidate.serial = False
            return
        reported = ledger.reported_load
        running = min(self.running_load, reported)
        first = ledger.first_open
        if running > 0:
            began, seen, behind = self.running_since, self.heard_at, reported - running + ledger.open_load
        elif first is not None:
            running, began, seen = first.cost, first.given_at, first.given_at
            behind = reported + ledger.open_load - running
        elif reported > 0:
            running, began, seen, behind = reported, self.heard_at, self.heard_at, 0.0
        else:
            candidate.set_idle(service_times, within)
            return
        candidate.set_running(
            running,
            queued_load=behind,
            started_at=began,
            seen_at=seen,
            end_report_seconds=within,
            service_times=service_times,
        )

    @property
    def believed_perf(self) -> float:
        """Load per second that it is given requests for: its workflow's word bounds its own, once there is one.

        The two differ for a second after an honest benchmark, and for as long as a claim is too good to be true.
        """
        said = self.route_perf
        return min(said, self.memo_perf * _OVER_MEMO_MAX) if self.memo_perf > 0 else said

    @property
    def holds(self) -> bool:
        """Whether it has a request, or a ticket for one."""
        return self.in_flight > 0 or self.ledger.tickets_open > 0 or self.ledger.outstanding > 0

    @property
    def drained(self) -> bool:
        """Whether it drains and, by its own report after the drain, holds nothing, and no ticket is open."""
        return (
            self.draining
            and self.heard_at > self.drain_seen_at
            and self.in_flight == 0
            and self.ledger.tickets_open == 0
        )

    @property
    def condition(self) -> Condition:
        """What it says about itself, or what the memo says while it has not spoken."""
        if self.heard_at <= 0:
            return Condition.READY if self.state is WorkerState.READY else Condition.LOADING
        if self.error:
            return Condition.ERROR
        return Condition.READY if self.loadtime_s > 0 and self.perf > 0 else Condition.LOADING

    @property
    def told_to_end(self) -> bool:
        """Whether its workflow has told it to stop or to go, so that no report is expected."""
        return self.state in _TOLD_TO_END

    @property
    def disagrees(self) -> bool:
        """Whether its own word and its workflow's differ: the workflow may have passed over the report that said so, as it does
        while a reboot is still being asked for."""
        if not self.listed or self.heard_at <= 0:
            return False
        if self.state is WorkerState.INACTIVE:
            return True
        if self.state in UNROUTABLE and self.state not in _RESTARTING:
            return False
        return (self.condition is Condition.READY) != (self.state is WorkerState.READY)

    @property
    def known_ready(self) -> bool:
        """Whether it says what its workflow knows: ready, at this address, with this perf.

        So it is no news after the start of an engine, when ten thousand workers are heard for the first time.
        """
        return (
            self.listed
            and self.state is WorkerState.READY
            and self.condition is Condition.READY
            and self.url == self.memo_url
            and abs(self.perf - self.memo_perf) <= _MEMO_ROUNDING * self.perf
        )

    def metrics(self) -> WorkerMetrics:
        """The worker as a batch tells the workflow."""
        return WorkerMetrics(
            launch_id=self.launch_id,
            instance_id=self.instance_id,
            condition=self.condition,
            perf=self.route_perf,
            load=round(max(0.0, self.ledger.outstanding), 6),
            in_flight=self.in_flight,
            tickets_open=self.ledger.tickets_open,
            reported_at=self.heard_at,
            loadtime_s=self.loadtime_s,
            url=self.route_url,
            official=self.official,
            error=self.error[:500],
            drain_seen=self.draining,
            suspect_since=self.suspect_since,
            incarnation=self.process.id,
            started_at=self.process.started_at,
        )

    def news(self) -> tuple[Any, ...]:
        """What would be news to the workflow if it changed."""
        return (
            self.instance_id,
            self.condition,
            self.perf,
            round(self.ledger.outstanding, 3),
            self.in_flight,
            self.ledger.tickets_open,
            self.url,
            self.error,
            self.draining,
            self.suspect_since,
            self.process.id,
        )


def _started_at(status: WorkerStatus, now: float) -> float:
    """When the report's process started, by its age; 0: it does not say so."""
    return now - status.uptime_seconds if status.uptime_seconds > 0 else 0.0
