"""One worker in the engine's soft state: memo listing, last report, outstanding requests, evidence of failures."""

from engine.routing.failure_detection.suspicion import Breaks, Suspicion
from engine.routing.listing import Listing
from engine.routing.outstanding import OutstandingLoad
from engine.routing.report import Report
from engine.settings import Timing
from policy.routing.service_time import ServiceTimes
from policy.routing.worker_selection import Candidate
from policy.state.incarnation import Process
from policy.tuning import DEFAULT_TUNING
from stoker_wire.messages import Condition, Member, WorkerMetrics
from stoker_wire.states import WorkerState
from stoker_wire.worker_status import WorkerStatus

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
"""States in which the worker gets no requests, whatever it reports."""

_RESTARTING = frozenset({WorkerState.REBOOTING, WorkerState.UPDATE_REBOOTING, WorkerState.UPDATE_STARTING})
"""Unroutable states that end with the worker's next ready report."""

_ORDERED_TO_END = frozenset({WorkerState.STOPPING, WorkerState.INACTIVE, WorkerState.DESTROYING})
"""Unroutable states in which no report is expected."""

_MEMO_ROUNDING = 0.006
"""The memo rounds perf to three digits."""


OWN_VERSION = "stoker-"
"""Prefix of the version that stoker's own worker reports."""


class KnownWorker:
    """Soft state of one launch. An engine rebuilds it from the memo at once and from reports within seconds."""

    __slots__ = (
        "breaks",
        "drain_seen_at",
        "drain_signalled",
        "instance_id",
        "launch_id",
        "listed",
        "listing",
        "outstanding",
        "process",
        "report",
        "sealed_key",
        "sent",
        "sent_at",
        "suspicion",
        "token_secret",
    )

    def __init__(self, launch_id: str) -> None:
        self.launch_id = launch_id
        self.instance_id = 0
        """From the memo or the first report, whichever comes first; 0: not known yet."""
        self.listed = False
        """Whether the endpoint's memo lists it; other workers get no requests."""
        self.listing = Listing()
        self.report = Report()
        self.process = Process()
        """The process that sends the reports."""
        self.outstanding = OutstandingLoad()
        self.suspicion = Suspicion()
        self.breaks = Breaks()
        self.drain_seen_at = 0.0
        """When this engine saw the drain order in the memo, Unix seconds."""
        self.drain_signalled = False
        """Whether the workflow was signalled that this drain is complete."""
        self.sealed_key = ""
        """The launch's sealed signing key, from its report path; empty: it reports on the deployment's path."""
        self.token_secret: bytes | None = None
        """The deployment secret that its token was made with, possibly the previous one; None: no token seen yet."""
        self.sent: tuple[object, ...] | None = None
        """Values in the last batch; None: include the worker in the next batch."""
        self.sent_at = 0.0

    def __repr__(self) -> str:
        mark = " draining" if self.listing.draining else ""
        mark += " suspect" if self.suspicion.since is not None else ""
        state = self.listing.state.printed
        return f"<KnownWorker {self.launch_id} {state}{mark}, {self.outstanding.load:g} load>"

    # -- inputs

    def apply_member(self, member: Member, now: float) -> bool:
        """Apply the memo's entry; returns whether a drain began."""
        before, after = self.listing, Listing.of(member)
        changed = after.state is not before.state
        restarted = changed and (
            after.state in UNROUTABLE
            or (after.state is WorkerState.STARTING and self.report.reported_at <= after.since)
        )
        ends = changed and (after.state in _RESTARTING or after.state in _ORDERED_TO_END)
        self.listed, self.listing = True, after
        self.instance_id = member.i or self.instance_id
        # The worker may have reported another address before the marketplace published the right one.
        if restarted or not after.allows(self.report.url):
            self._forget_report()
        if ends and after.state is not WorkerState.UPDATE_STARTING:
            self._end_process(now)
        drain_begins = after.draining and not before.draining
        if drain_begins:
            self.drain_seen_at, self.drain_signalled = now, False
        return drain_begins

    def is_late(self, status: WorkerStatus, now: float) -> bool:
        """Whether the report comes from an earlier process of the worker and does not describe the current one."""
        reported_at = self.report.reported_at
        if self.listing.state in _ORDERED_TO_END and reported_at <= 0:
            known = bool(status.process) and status.process not in self.process.ended
            return (
                not known
                and self.process.ended_at > 0
                and now <= self.process.ended_at + DEFAULT_TUNING.late_report_seconds
            )
        awaits = self.listing.state in _RESTARTING and reported_at <= 0
        return self.process.is_late(
            status.process,
            _started_at(status, now),
            reported_at=now,
            quiet_since=None if awaits else max(reported_at, self.process.ended_at),
        )

    def apply_report(self, status: WorkerStatus, url: str, now: float) -> None:
        """Apply an authenticated and checked report that is not late."""
        if self.process.is_replaced_by(status.process):
            self._end_process(now)
            self._forget_report()
        self.process = self.process.with_report(status.process, _started_at(status, now))
        self.instance_id = self.instance_id or status.id
        self.report = Report.of(status, url, now)
        leaves = status.draining and not self.listing.draining and self.listing.state not in UNROUTABLE
        self.suspicion.apply_report(now, leaves_unordered=leaves)
        self.outstanding.report(status.cur_load, status.working_request_idxs, now)

    def has_restarted(self, status: WorkerStatus) -> bool:
        """Whether the report comes from another process than the last one, without an order to restart."""
        listing, report = self.listing, self.report
        if report.reported_at <= 0 or listing.state in UNROUTABLE or listing.draining or report.draining:
            return False
        if status.incarnation and self.process.id:
            return self.process.is_replaced_by(status.incarnation)
        return status.num_requests_recieved < report.requests_received

    def started_after(self, moment: float) -> bool:
        """Whether the current process started after this moment (Unix seconds); earlier failures are not its own."""
        return self.process.started_at > moment or self.process.ended_at > moment

    def _end_process(self, now: float) -> None:
        self.process = self.process.with_end(now)
        self.suspicion.clear()

    def _forget_report(self) -> None:
        """The process is stopping or restarting: its report does not describe the next process."""
        self.report = self.report.outdated()
        self.suspicion.leaves_unordered = False
        self.sent = None
        self.outstanding.clear_report()

    # -- routing

    def is_fresh(self, now: float, timing: Timing) -> bool:
        """Whether its last report is recent enough to be trusted."""
        reported_at = self.report.reported_at
        return reported_at > 0 and now - reported_at <= timing.report_fresh_seconds

    def reports_ready(self, now: float, timing: Timing) -> bool:
        """Whether a fresh report says: loaded, benchmarked, no error."""
        report = self.report
        return self.is_fresh(now, timing) and report.loadtime_s > 0 and report.perf > 0 and not report.error

    def is_routable(self, now: float, timing: Timing, *, trust_memo: bool) -> bool:
        """Whether it may be given a request now."""
        listing, report = self.listing, self.report
        if (
            not self.listed
            or listing.draining
            or self._is_suspect(now)
            or now < self.suspicion.excluded_until
        ):
            return False
        if listing.state in UNROUTABLE or report.draining:
            return False
        if self.is_fresh(now, timing):
            return report.loadtime_s > 0 and report.perf > 0 and not report.error and bool(report.url)
        if not trust_memo or listing.state is not WorkerState.READY or listing.perf <= 0 or not listing.url:
            return False
        # An official worker checks signatures with its launch's own key, which is known only from its report path.
        return listing.allows(listing.url) and (bool(self.sealed_key) or not listing.official)

    def _is_suspect(self, now: float) -> bool:
        since = self.suspicion.since
        return since is not None and (
            self.report.reported_at > 0 or now - since < DEFAULT_TUNING.worker_unheard_suspect_seconds
        )

    @property
    def is_official(self) -> bool:
        """Whether it runs the official package's worker."""
        status = self.report.status
        return self.listing.official if status is None else not status.version.startswith(OWN_VERSION)

    @property
    def route_url(self) -> str:
        """Where its requests are sent."""
        return self.report.url if self.report.reported_at > 0 else self.listing.url

    @property
    def route_perf(self) -> float:
        """Load per second: its own figure if it has reported, otherwise the memo's."""
        return self.report.perf if self.report.reported_at > 0 else self.listing.perf

    @property
    def trusted_perf(self) -> float:
        """Load per second used for routing: the memo's figure bounds the worker's own.

        The two differ for about a second after a benchmark, and permanently if the workflow rejects the figure.
        """
        claimed, confirmed = self.route_perf, self.listing.perf
        return min(claimed, confirmed * DEFAULT_TUNING.worker_over_memo_max) if confirmed > 0 else claimed

    def fill_candidate(self, candidate: Candidate, service_times: ServiceTimes) -> None:
        """Copy the outstanding load, and the progress where the worker reports it, to the routing candidate."""
        outstanding, report = self.outstanding, self.report
        within = report.end_report_seconds
        candidate.outstanding = outstanding.load
        model = None if report.status is None else report.status.model
        full = model is not None and model.full
        if within <= 0:
            candidate.set_parallel(full=full, served=outstanding.reported_load * report.served_share)
            return
        candidate.full = full
        reported = outstanding.reported_load
        running = min(report.running_load, reported)
        first = outstanding.first_open
        if running > 0:
            began, seen, behind = (
                report.running_since,
                report.reported_at,
                reported - running + outstanding.open_load,
            )
        elif first is not None:
            running, began, seen = first.cost, first.assigned_at, first.assigned_at
            behind = reported + outstanding.open_load - running
        elif reported > 0:
            running, began, seen, behind = reported, report.reported_at, report.reported_at, 0.0
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
    def holds(self) -> bool:
        """Whether it has a request or an unused ticket."""
        outstanding = self.outstanding
        return self.report.in_flight > 0 or outstanding.tickets_open > 0 or outstanding.load > 0

    # -- signals to the workflow

    @property
    def is_drained(self) -> bool:
        """Whether a report after the drain order shows no request, and no ticket is open."""
        return (
            self.listing.draining
            and self.report.reported_at > self.drain_seen_at
            and self.report.in_flight == 0
            and self.outstanding.tickets_open == 0
        )

    @property
    def condition(self) -> Condition:
        """Its condition by its own report, or by the memo if it has not reported."""
        report = self.report
        if report.reported_at <= 0:
            return Condition.READY if self.listing.state is WorkerState.READY else Condition.LOADING
        if report.error:
            return Condition.ERROR
        return Condition.READY if report.loadtime_s > 0 and report.perf > 0 else Condition.LOADING

    @property
    def ordered_to_end(self) -> bool:
        """Whether its workflow has ordered it to stop or be destroyed, so that no report is expected."""
        return self.listing.state in _ORDERED_TO_END

    @property
    def contradicts_workflow(self) -> bool:
        """Whether its report contradicts its workflow's state: the workflow ignores reports during a reboot."""
        state = self.listing.state
        if not self.listed or self.report.reported_at <= 0:
            return False
        if state is WorkerState.INACTIVE:
            return True
        if state in UNROUTABLE and state not in _RESTARTING:
            return False
        return (self.condition is Condition.READY) != (state is WorkerState.READY)

    @property
    def matches_memo(self) -> bool:
        """Whether its report repeats what the workflow knows: ready, same address, same perf.

        After an engine start the first reports of thousands of workers therefore cause no signals.
        """
        return (
            self.listed
            and self.listing.state is WorkerState.READY
            and self.condition is Condition.READY
            and self.report.url == self.listing.url
            and abs(self.report.perf - self.listing.perf) <= _MEMO_ROUNDING * self.report.perf
        )

    def metrics(self) -> WorkerMetrics:
        """The worker's entry in a batch."""
        return WorkerMetrics(
            launch_id=self.launch_id,
            instance_id=self.instance_id,
            condition=self.condition,
            perf=self.route_perf,
            load=round(max(0.0, self.outstanding.load), 6),
            in_flight=self.report.in_flight,
            waiting=self.report.waiting,
            tickets_open=self.outstanding.tickets_open,
            reported_at=self.report.reported_at,
            provisional=self.report.provisional,
            loadtime_s=self.report.loadtime_s,
            download_s=self.report.download_seconds,
            url=self.route_url,
            official=self.is_official,
            error=self.report.error[:500],
            error_everywhere=self.report.error_everywhere,
            phase=self.report.phase,
            drain_seen=self.listing.draining,
            suspect_since=self.suspicion.since,
            incarnation=self.process.id,
            started_at=self.process.started_at,
        )

    def snapshot(self) -> tuple[object, ...]:
        """The values whose change the workflow has to learn: compared with those of the last batch, and nothing else."""
        return (
            self.instance_id,
            self.condition,
            self.report.perf,
            self.report.provisional,
            round(self.outstanding.load, 3),
            self.report.in_flight,
            self.report.waiting,
            self.outstanding.tickets_open,
            self.report.url,
            self.report.error,
            self.report.error_everywhere,
            self.report.phase,
            self.listing.draining,
            self.suspicion.since,
            self.process.id,
        )


def _started_at(status: WorkerStatus, now: float) -> float:
    """When the reporting process started, from its uptime; 0: it does not report one."""
    return now - status.uptime_seconds if status.uptime_seconds > 0 else 0.0
