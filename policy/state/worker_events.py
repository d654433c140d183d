"""Fold news into the record of a worker: its own words, the marketplace's listing, and results of operations.

Pure: the workflow calls these from signals and activity results. Every function answers with what is recorded from now on
and with lines for the decision log.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

from policy.capacity.perf_bounds import PerfBound, perf_bound
from policy.state.host_failures import cause_of
from policy.state.lifecycle import LIFECYCLE, advance, is_booting, is_hot
from policy.state.machine_stats import (
    believe_at_most,
    learn_boot,
    learn_failure,
    learn_perf,
    learn_start,
    remember_hosts,
)
from policy.state.worker import HostFailure, MachineStats, Worker
from policy.tuning import DEFAULT_TUNING, Tuning
from policy.wording import duration
from stoker_wire.states import WorkerState as S

_ERROR_CHARS = 300


class WorkerReport(Protocol):
    """What a worker says through an engine (`stoker_wire.messages.WorkerMetrics` fits)."""

    @property
    def instance_id(self) -> int:
        """The marketplace instance; 0: not known."""
        ...

    @property
    def condition(self) -> str:
        """`loading`, `ready` or `error`."""
        ...

    @property
    def perf(self) -> float:
        """Benchmark result, load/s; 0 until it has run."""
        ...

    @property
    def load(self) -> float:
        """Load that it holds, with what is on its way to it."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests that it holds, by its own report."""
        ...

    @property
    def tickets_open(self) -> int:
        """Route answers of this engine that it has not seen."""
        ...

    @property
    def reported_at(self) -> float:
        """When its last report arrived, Unix seconds; 0: none has."""
        ...

    @property
    def url(self) -> str:
        """Where it listens."""
        ...

    @property
    def official(self) -> bool:
        """It is the official package's worker."""
        ...

    @property
    def error(self) -> str:
        """Its error message, or nothing."""
        ...

    @property
    def suspect_since(self) -> float | None:
        """Since when clients say that it does not answer, and it has not reported after that."""
        ...

    @property
    def incarnation(self) -> str:
        """Names the process that all of this is about; empty: not known."""
        ...

    @property
    def started_at(self) -> float:
        """When that process started, by the engine's clock and the process's age; 0: not said."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldResult:
    """One worker after one piece of news."""

    worker: Worker | None
    """None: it is gone from the record."""
    learned: MachineStats
    lines: tuple[str, ...] = ()
    """For the decision log, one sentence each; empty when nothing worth telling changed."""

    @property
    def material(self) -> bool:
        """Whether a plan may come out differently: a line was written."""
        return bool(self.lines)


_RESTARTING = frozenset({S.STARTING, S.REBOOTING, S.UPDATE_REBOOTING, S.UPDATE_STARTING})
RESTARTS = frozenset({"reboot", "update"})
"""Operations that restart the container, and once more if the answer to the first call was lost."""
_TOLD_TO_END = frozenset({S.STOPPING, S.INACTIVE, S.DESTROYING})
"""A report in these says that the machine runs and is billed, unless it is a late one of the process that ended."""


def fold_metrics(
    worker: Worker,
    heard: WorkerReport,
    *,
    now: float,
    learned: MachineStats,
    tickets_open: int | None = None,
    fleet: Iterable[Worker] = (),
) -> FoldResult:
    """The worker after an engine spoke of it; `tickets_open` is the sum over all engines, if there are several.

    `fleet` is the whole endpoint's: a perf far above what the worker's like do is believed up to a bound.

    Of a report of a process that has ended only the tickets count. The same holds for one that arrives while a restart
    is still being asked for: a worker that took requests again would lose them to the next try.
    `drain.seen_at` is not set here: only the caller knows which engines live (`fold_drain_seen`).
    """
    worker = worker.replace(tickets_open=heard.tickets_open if tickets_open is None else tickets_open)
    if _is_late(worker, heard, now):
        return FoldResult(worker=worker, learned=learned)
    if worker.state in _TOLD_TO_END:
        return _heard_running(worker, heard, now, learned)
    worker = worker.replace(suspect_since=_suspicion(worker, heard))
    if worker.state in _RESTARTING and worker.operation in RESTARTS:
        return FoldResult(worker=worker, learned=learned)
    if heard.reported_at <= 0 or heard.reported_at < (worker.reported_at or 0.0):
        return FoldResult(worker=worker, learned=learned)
    replaced = worker.process.is_replaced_by(heard.incarnation)
    worker = worker.replace(
        process=worker.process.heard(heard.incarnation, heard.started_at),
        reported_at=heard.reported_at,
        load=heard.load,
        in_flight=heard.in_flight,
        url=heard.url or worker.url,
        official=heard.official,
        instance_id=worker.instance_id or heard.instance_id or None,
    )
    if heard.condition == "error" or heard.error:
        return _heard_error(worker, heard, now, learned)
    if heard.condition == "ready":
        folded = _heard_ready(worker, heard, now, learned, perf_bound(worker, fleet, learned))
        if replaced and not folded.lines:
            line = f"{worker.launch_id[:6]} ({worker.kind}) restarted by itself and is ready again"
            folded = replace(folded, lines=(line,))
        return folded
    return _heard_loading(worker, heard, now, learned, replaced=replaced)


def _is_late(worker: Worker, heard: WorkerReport, now: float) -> bool:
    """Whether the worker's report is of a process that has ended."""
    if heard.reported_at <= 0:
        return False
    process, since = worker.process, worker.since
    age = heard.reported_at - heard.started_at if heard.started_at > 0 else 0.0
    if age > 0 and not process.id and now - age < process.ended_at:
        return worker.state not in _TOLD_TO_END or not _outlived(worker, heard)
    if worker.state in _TOLD_TO_END:
        known = bool(heard.incarnation) and heard.incarnation not in process.ended
        return not known and not _outlived(worker, heard)
    if worker.state in _RESTARTING and not process.id:
        if process.is_late(
            heard.incarnation, heard.started_at, reported_at=heard.reported_at, quiet_since=None
        ):
            return True
        if age <= 0:
            # Without an age the time decides: the old process repeats its error until it has gone.
            errs = heard.condition == "error" or bool(heard.error)
            return heard.reported_at <= since + (DEFAULT_TUNING.late_report_seconds if errs else 0.0)
        return False
    quiet_since = max(worker.reported_at or 0.0, since)
    return process.is_late(
        heard.incarnation, heard.started_at, reported_at=heard.reported_at, quiet_since=quiet_since
    )


def _outlived(worker: Worker, heard: WorkerReport) -> bool:
    """Whether a worker that was told to end reports when every late report has come."""
    told_at = max(worker.since, worker.stop_accepted_at if worker.state is S.STOPPING else 0.0)
    return heard.reported_at > told_at + DEFAULT_TUNING.late_report_seconds


def _heard_running(worker: Worker, heard: WorkerReport, now: float, learned: MachineStats) -> FoldResult:
    """It runs although it was told to stop or to go: count what it costs, and end it again or put it to use."""
    if heard.reported_at <= 0 or worker.operation or worker.heard_running:
        return FoldResult(worker=worker, learned=learned)
    name, after = f"{worker.launch_id[:6]} ({worker.kind})", duration(now - worker.since)
    if worker.state is S.INACTIVE:
        process = worker.process.heard(heard.incarnation, heard.started_at)
        running = advance(
            worker,
            S.STARTING,
            now,
            process=process,
            market_status="",
            reported_at=heard.reported_at,
            url=heard.url or worker.url,
        )
        if heard.condition == "ready" and not heard.error:
            # nothing is learned of how long a start takes: when this one began is not known
            running = advance(running, S.READY, now, error="", perf=worker.perf or heard.perf)
        line = f"{name} runs although it was stopped {after} ago: it is put to use, or stopped again"
        return FoldResult(worker=running, learned=learned, lines=(line,))
    if worker.state is S.STOPPING:
        # `since` and the marketplace's word are set back, so that the planner asks again now
        again = worker.replace(
            heard_running=True, since=min(worker.since, now - DEFAULT_TUNING.stop_retry_seconds)
        )
        again = again.replace(stop_accepted_at=0.0)
        line = f"{name} still runs {after} after its stop was ordered: it is billed, and stopped again"
        return FoldResult(worker=again, learned=learned, lines=(line,))
    line = f"{name} still runs {after} after its release was ordered: it is billed, and released again"
    return FoldResult(worker=worker.replace(heard_running=True, retry_at=0.0), learned=learned, lines=(line,))


def _suspicion(worker: Worker, heard: WorkerReport) -> float | None:
    """A suspicion that is older than the process is about an earlier one. Only a report that came after it clears it:
    another engine's silence about it does not."""
    suspect_since = heard.suspect_since
    if suspect_since is not None and suspect_since <= max(worker.process.ended_at, worker.process.started_at):
        suspect_since = None
    if suspect_since is not None or worker.suspect_since is None:
        return suspect_since
    return None if heard.reported_at > worker.suspect_since else worker.suspect_since


def fold_drain_seen(worker: Worker, *, at: float) -> Worker:
    """Every live engine has seen that the worker drains."""
    if worker.drain is None or worker.drain.seen_at is not None:
        return worker
    return worker.replace(drain=replace(worker.drain, seen_at=at))


def _heard_ready(
    worker: Worker, heard: WorkerReport, now: float, learned: MachineStats, most: PerfBound | None
) -> FoldResult:
    perf = heard.perf or worker.perf
    if most is not None and perf > most.perf:
        return _heard_too_good(worker, heard, now, learned, most)
    if worker.state is S.READY:
        if perf == worker.perf:
            return FoldResult(worker=worker, learned=learned)
        line = f"{worker.launch_id[:6]} measured {perf:.4g} load/s, {worker.perf:.4g} before"
        return FoldResult(
            worker=worker.replace(perf=perf), learned=learn_perf(learned, worker, perf), lines=(line,)
        )
    if worker.state is S.ERROR and heard.reported_at <= worker.since:
        return FoldResult(worker=worker, learned=learned)
    if worker.loaded_once:
        took = now - worker.since
        if worker.state is S.STARTING:
            learned = learn_start(learned, worker, took)
    else:
        took = now - worker.launched_at
        learned = learn_boot(learned, worker, took)
    if perf > 0 and perf != worker.perf:
        learned = learn_perf(learned, worker, perf)
    line = f"{worker.launch_id[:6]} ({worker.kind}) is ready after {duration(took)} with {perf:.4g} load/s"
    ready = advance(worker, S.READY, now, perf=perf, loaded_once=True, error="", drain=None)
    return FoldResult(worker=ready, learned=learned, lines=(line,))


def _heard_too_good(
    worker: Worker, heard: WorkerReport, now: float, learned: MachineStats, most: PerfBound
) -> FoldResult:
    """It counts for the most that can be believed, and its kind's record for no more than that either."""
    near = abs(worker.perf - most.perf) <= DEFAULT_TUNING.perf_bound_log_share * most.perf
    if worker.state is S.READY and near:
        return FoldResult(
            worker=worker, learned=learned
        )  # said already; the bound itself moves a little all the time
    folded = _heard_ready(
        worker,
        cast("WorkerReport", _Held(heard, most.perf)),
        now,
        believe_at_most(learned, worker, most.perf),
        None,
    )
    line = (
        f"{worker.launch_id[:6]} ({worker.kind}) claims {heard.perf:.4g} load/s, but {most.reason}: "
        f"it counts as {most.perf:.4g}"
    )
    return replace(folded, lines=(*folded.lines, line))


class _Held:
    """What a worker says, with another perf."""

    def __init__(self, heard: WorkerReport, perf: float) -> None:
        self._heard = heard
        self.perf = perf

    def __getattr__(self, name: str) -> Any:
        return getattr(self._heard, name)


def _heard_loading(
    worker: Worker, heard: WorkerReport, now: float, learned: MachineStats, *, replaced: bool
) -> FoldResult:
    if worker.state is S.READY or (worker.state is S.ERROR and worker.loaded_once and replaced):
        if heard.reported_at <= worker.since:
            return FoldResult(worker=worker, learned=learned)
        line = f"{worker.launch_id[:6]} ({worker.kind}) restarted by itself and loads again"
        return FoldResult(worker=advance(worker, S.STARTING, now), learned=learned, lines=(line,))
    if not worker.loaded_once and S.MODEL_LOADING in LIFECYCLE[worker.state].moves:
        line = f"{worker.launch_id[:6]} ({worker.kind}) loads its model"
        return FoldResult(worker=advance(worker, S.MODEL_LOADING, now), learned=learned, lines=(line,))
    return FoldResult(worker=worker, learned=learned)


def _heard_error(worker: Worker, heard: WorkerReport, now: float, learned: MachineStats) -> FoldResult:
    error = (heard.error or "it reports an error without a message")[:_ERROR_CHARS]
    if worker.state is S.ERROR:
        return FoldResult(worker=worker.replace(error=error), learned=learned)
    return fold_error(worker, error, now, learned)


def fold_error(worker: Worker, error: str, now: float, learned: MachineStats) -> FoldResult:
    """The worker with an error recorded, if its state can have one."""
    if S.ERROR not in LIFECYCLE[worker.state].moves:
        return FoldResult(worker=worker, learned=learned)
    if not worker.loaded_once:
        learned = learn_failure(learned, worker)
    reboots = (
        0
        if is_hot(worker) and now - worker.since > DEFAULT_TUNING.reboot_forgiven_seconds
        else worker.reboots
    )
    line = f"{worker.launch_id[:6]} ({worker.kind}) {worker.state.printed} broke: {error}"
    broken = advance(worker, S.ERROR, now, error=error[:_ERROR_CHARS], reboots=reboots)
    return FoldResult(worker=broken, learned=learned, lines=(line,))


def fold_operation_result(
    worker: Worker,
    operation: str,
    *,
    now: float,
    learned: MachineStats,
    ok: bool,
    error_kind: str = "",
    error: str = "",
    instance_id: int | None = None,
    revision: int | None = None,
    tuning: Tuning = DEFAULT_TUNING,
) -> FoldResult:
    """The worker after a market operation (`create`, `start`, `stop`, `reboot`, `destroy`, `update`) ended.

    `error_kind`: `offer_gone`, `instance_gone`, `refused` (final), anything else may pass and is tried again with
    growing pauses. `instance_id` comes with a create, `revision` with an update.
    """
    if worker.operation == operation:
        worker = worker.replace(operation="")
    if ok:
        return _succeeded(worker, operation, now, learned, instance_id, revision, tuning)
    if error_kind == "instance_gone" and operation != "create":
        return fold_instance_gone(worker, "the market knows no such instance", learned)
    name = f"{worker.launch_id[:6]} ({worker.kind})"
    line = f"{operation} of {name} failed: {error[:_ERROR_CHARS] or error_kind}"
    if operation == "create":
        return _not_created(worker, error_kind, error, line, now, learned, tuning)
    failures = worker.failures + 1
    worker = worker.replace(failures=failures, retry_at=now + _pause(failures), error=error[:_ERROR_CHARS])
    match operation:
        case "start" if worker.state is S.STARTING:
            worker = advance(worker, S.INACTIVE, now)
        case "start" if worker.state is S.LOADING:
            worker = advance(worker, S.CREATED, now)
        case "update" if worker.state is S.UPDATE_REBOOTING:
            worker = advance(worker, S.UPDATE_READY, now)
        case "stop" if worker.state is S.STOPPING:
            # not stopped: `since` is set back so that the planner asks again as soon as the pause is over
            worker = worker.replace(since=min(worker.since, now - tuning.stop_retry_seconds))
        case "reboot" if worker.state is S.REBOOTING and error_kind == "refused":
            worker = advance(worker, S.ERROR, now)
        case _:
            pass
    return FoldResult(worker=worker, learned=learned, lines=(line,))


def _succeeded(
    worker: Worker,
    operation: str,
    now: float,
    learned: MachineStats,
    instance_id: int | None,
    revision: int | None,
    tuning: Tuning,
) -> FoldResult:
    if operation == "create":
        worker = worker.replace(instance_id=instance_id or worker.instance_id)
        if worker.state is S.PENDING:
            worker = advance(worker, S.CREATING, now)
    elif operation == "stop" and worker.state is S.STOPPING:
        # stopped when the listing says so; until then asked again from time to time
        worker = worker.replace(stop_accepted_at=now)
    elif operation == "destroy":
        # gone when the listing says so; until then asked again from time to time
        worker = worker.replace(retry_at=now + tuning.destroy_retry_seconds)
    elif operation == "reboot" and worker.state is S.REBOOTING:
        # reports that arrived before the call was through are from before the reboot
        worker = worker.replace(since=now)
    elif operation == "update":
        worker = worker.replace(revision=revision or worker.revision, failures=0, retry_at=0.0, error="")
        if worker.state is S.UPDATE_REBOOTING:
            worker = advance(worker, S.UPDATE_STARTING, now)
    return FoldResult(worker=worker, learned=learned)


def _not_created(
    worker: Worker, error_kind: str, error: str, line: str, now: float, learned: MachineStats, tuning: Tuning
) -> FoldResult:
    """Nothing was rented, or nobody knows: then it is released by its label."""
    if error_kind == "offer_gone" and worker.machine_id:
        taken = HostFailure(
            machine_id=worker.machine_id,
            until=now + tuning.offer_gone_block_seconds,
            reason="its offer was rented by someone else",
            workergroup_id=worker.workergroup_id,
        )
        learned = remember_hosts(learned, [taken], now)
    elif error_kind == "refused" and worker.machine_id:
        refused = HostFailure(
            machine_id=worker.machine_id,
            until=now + tuning.host_block_seconds,
            reason=line,
            workergroup_id=worker.workergroup_id,
            failed_at=now,
            revision=worker.revision,
            cause=cause_of(error),
        )
        learned = remember_hosts(_blame_kind(learned, worker), [refused], now)
    if error_kind in ("offer_gone", "refused"):
        return FoldResult(worker=None, learned=learned, lines=(line,))
    if worker.state is S.PENDING:
        worker = advance(worker, S.DESTROYING, now, left_running=True)
        line += "; whether it was rented is unknown, so it is released by its label"
    return FoldResult(worker=worker, learned=learned, lines=(line,))


def _blame_kind(learned: MachineStats, worker: Worker) -> MachineStats:
    return learned if worker.loaded_once else learn_failure(learned, worker)


def fold_instance_gone(worker: Worker, why: str, learned: MachineStats) -> FoldResult:
    """The worker is not there any more: released as ordered, or lost."""
    if worker.state is S.DESTROYING:
        return FoldResult(worker=None, learned=learned, lines=(f"{worker.launch_id[:6]} is released",))
    was = f"{worker.launch_id[:6]} ({worker.kind}) {worker.state.printed}"
    if is_booting(worker):
        learned = _blame_kind(learned, worker)
    return FoldResult(worker=None, learned=learned, lines=(f"{was} vanished: {why}",))


def _pause(failures: int) -> float:
    """5 s, 10 s, 20 s … 5 min: a market that is down is not asked in a loop, one that hiccuped is asked soon."""
    return float(min(5 * 2 ** (min(failures, 10) - 1), 300))
