"""Worker events: apply worker reports and operation results to the record of a worker.

Pure functions, called from message handlers and for activity results. Each returns the new records and lines for the
decision log.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from policy.amounts import amount
from policy.capacity.perf_bounds import PerfBound, perf_bound
from policy.state.host_failures import cause_of
from policy.state.lifecycle import LIFECYCLE, advance, enter_phase, is_booting, is_hot
from policy.state.machine_stats import (
    Boot,
    cap_perf,
    learn_boot,
    learn_failure,
    learn_perf,
    learn_start,
    remember_hosts,
)
from policy.state.worker import HostFailure, MachineStats, Worker
from policy.tuning import DEFAULT_TUNING, Tuning
from policy.wording import duration
from stoker_wire.messages import Condition, WorkerMetrics
from stoker_wire.parsing.limits import excerpt
from stoker_wire.states import WorkerState as S

_ERROR_BYTES = 300


@dataclass(frozen=True, slots=True)
class FoldResult:
    """The records after an event of one worker."""

    worker: Worker | None
    """None: the worker is removed."""
    learned: MachineStats
    lines: tuple[str, ...] = ()
    """Lines for the decision log; empty if nothing significant changed."""


_RESTARTING = frozenset({S.STARTING, S.REBOOTING, S.UPDATE_REBOOTING, S.UPDATE_STARTING})
RESTARTS = frozenset({"reboot", "update"})
"""Operations that restart the container; again if the answer to the first call was lost."""
_ENDING = frozenset({S.STOPPING, S.INACTIVE, S.DESTROYING})
"""A report in these states means that the machine still runs, unless it is a late one of the ended process."""


def fold_metrics(
    worker: Worker,
    report: WorkerMetrics,
    *,
    now: float,
    learned: MachineStats,
    tickets_open: int | None = None,
    fleet: Iterable[Worker] = (),
) -> FoldResult:
    """The worker after a report by an engine. `tickets_open` is the sum over all engines, if there are several.

    `fleet` are all workers of the endpoint; they bound the accepted perf.

    A report of an ended process changes only the open tickets. While a restart is requested, a report changes only the
    tickets and the suspicion: a worker counted as ready now would lose its requests if the restart is repeated.
    `drain.seen_at` is set by `fold_drain_seen`, because only the caller knows the live engines.
    """
    worker = worker.replace(tickets_open=report.tickets_open if tickets_open is None else tickets_open)
    if worker.state in _ENDING and worker.operation:
        if report.reported_at > (worker.reported_at or 0.0):
            # The operation waits for the requests that a booting worker got at the last moment.
            worker = worker.replace(load=report.load, in_flight=report.in_flight)
        return FoldResult(worker, learned)
    if _is_late(worker, report, now):
        return FoldResult(worker, learned)
    if worker.state in _ENDING:
        return _report_while_ending(worker, report, now, learned)
    worker = worker.replace(suspect_since=_suspicion(worker, report))
    if worker.state in _RESTARTING and worker.operation in RESTARTS:
        return FoldResult(worker, learned)
    if report.reported_at <= 0 or report.reported_at < (worker.reported_at or 0.0):
        return FoldResult(worker, learned)
    replaced = worker.process.is_replaced_by(report.incarnation)
    worker = worker.replace(
        process=worker.process.with_report(report.incarnation, report.started_at),
        reported_at=report.reported_at,
        load=report.load,
        in_flight=report.in_flight,
        waiting=report.waiting,
        url=report.url or worker.url,
        official=report.official,
        instance_id=worker.instance_id or report.instance_id or None,
    )
    if report.condition is Condition.ERROR or report.error:
        return _report_error(worker, report, now, learned)
    if report.condition is Condition.READY:
        folded = _report_ready(worker, report, now, learned, perf_bound(worker, fleet, learned))
        if replaced and not folded.lines:
            line = f"{worker.log_name} restarted by itself and is ready again"
            folded = replace(folded, lines=(line,))
        return folded
    folded = _report_loading(worker, report, now, learned, replaced=replaced)
    if folded.worker is None:
        return folded
    return replace(folded, worker=enter_phase(folded.worker, report.phase, report.reported_at))


def _is_late(worker: Worker, report: WorkerMetrics, now: float) -> bool:
    """Whether the report comes from a process that has ended."""
    if report.reported_at <= 0:
        return False
    process, since = worker.process, worker.since
    age = report.reported_at - report.started_at if report.started_at > 0 else 0.0
    if age > 0 and not process.id and now - age < process.ended_at:
        return worker.state not in _ENDING or not _is_after_late_reports(worker, report)
    if worker.state in _ENDING:
        known = bool(report.incarnation) and report.incarnation not in process.ended
        return not known and not _is_after_late_reports(worker, report)
    if worker.state in _RESTARTING and not process.id:
        if process.is_late(
            report.incarnation, report.started_at, reported_at=report.reported_at, quiet_since=None
        ):
            return True
        if age <= 0:
            # Without an age, time decides: the old process repeats its error until it has ended.
            has_error = report.condition is Condition.ERROR or bool(report.error)
            return report.reported_at <= since + (DEFAULT_TUNING.late_report_seconds if has_error else 0.0)
        return False
    quiet_since = max(worker.reported_at or 0.0, since)
    return process.is_late(
        report.incarnation, report.started_at, reported_at=report.reported_at, quiet_since=quiet_since
    )


def _is_after_late_reports(worker: Worker, report: WorkerMetrics) -> bool:
    """Whether a worker that was ordered to end reports later than any late report could arrive."""
    ordered_at = max(worker.since, worker.stop_accepted_at if worker.state is S.STOPPING else 0.0)
    return report.reported_at > ordered_at + DEFAULT_TUNING.late_report_seconds


def _report_while_ending(
    worker: Worker, report: WorkerMetrics, now: float, learned: MachineStats
) -> FoldResult:
    """The worker still runs after a stop or release: count its cost, and repeat the operation or use it."""
    if report.reported_at <= 0 or worker.still_reporting:
        return FoldResult(worker, learned)
    after = duration(now - worker.since)
    if worker.state is S.INACTIVE:
        process = worker.process.with_report(report.incarnation, report.started_at)
        running = advance(
            worker,
            S.STARTING,
            now,
            process=process,
            market_status="",
            reported_at=report.reported_at,
            url=report.url or worker.url,
        )
        if report.condition is Condition.READY and not report.error:
            # The start time is unknown, so its duration is not recorded.
            running = advance(running, S.READY, now, error="", perf=worker.perf or report.perf)
        line = f"{worker.log_name} runs although it was stopped {after} ago; it is used or stopped again"
        return FoldResult(running, learned, (line,))
    if worker.state is S.STOPPING:
        # An earlier `since` and no accepted stop make the planner repeat the stop now.
        again = worker.replace(
            still_reporting=True, since=min(worker.since, now - DEFAULT_TUNING.stop_retry_seconds)
        )
        again = again.replace(stop_accepted_at=0.0)
        line = f"{worker.log_name} still runs {after} after its stop was ordered; billed, stopping again"
        return FoldResult(again, learned, (line,))
    line = f"{worker.log_name} still runs {after} after its release was ordered; billed, releasing again"
    return FoldResult(worker.replace(still_reporting=True, retry_at=0.0), learned, (line,))


def _suspicion(worker: Worker, report: WorkerMetrics) -> float | None:
    """The suspicion after a report. One older than the process concerns an earlier process.

    Only a later report of the worker clears it; a missing suspicion at another engine does not.
    """
    suspect_since = report.suspect_since
    if suspect_since is not None and suspect_since <= max(worker.process.ended_at, worker.process.started_at):
        suspect_since = None
    if suspect_since is not None or worker.suspect_since is None:
        return suspect_since
    return None if report.reported_at > worker.suspect_since else worker.suspect_since


def fold_drain_seen(worker: Worker, *, at: float) -> Worker:
    """Record that every live engine has confirmed the drain."""
    if worker.drain is None or worker.drain.seen_at is not None:
        return worker
    return worker.replace(drain=replace(worker.drain, seen_at=at))


def _report_ready(
    worker: Worker, report: WorkerMetrics, now: float, learned: MachineStats, bound: PerfBound | None
) -> FoldResult:
    perf, provisional = _perf(worker, report)
    if bound is None or perf <= bound.perf:
        return _ready(worker, report, perf, now, learned, provisional=provisional)
    change = abs(worker.perf - bound.perf)
    if worker.state is S.READY and change <= DEFAULT_TUNING.perf_bound_log_share * bound.perf:
        # Logged before. The bound itself changes slightly with every report.
        return FoldResult(worker, learned)
    learned = cap_perf(learned, worker, bound.perf)
    folded = _ready(worker, report, bound.perf, now, learned, provisional=provisional)
    line = (
        f"{worker.log_name} reports {amount(report.perf)} load/s, but {bound.reason}; "
        f"it counts as {amount(bound.perf)}"
    )
    return replace(folded, lines=(*folded.lines, line))


def _perf(worker: Worker, report: WorkerMetrics) -> tuple[float, bool]:
    """The perf after a report, and whether it is an estimate. An estimate does not replace a measurement."""
    if not report.perf or (report.provisional and worker.perf > 0 and not worker.provisional):
        return worker.perf, worker.provisional
    return report.perf, report.provisional


def _ready(
    worker: Worker,
    report: WorkerMetrics,
    perf: float,
    now: float,
    learned: MachineStats,
    *,
    provisional: bool,
) -> FoldResult:
    """The worker after it reported ready with an accepted perf."""
    is_sample = perf > 0 and not provisional and (perf != worker.perf or worker.provisional)
    if worker.state is S.READY:
        if perf == worker.perf and provisional == worker.provisional:
            return FoldResult(worker, learned)
        found = "estimates" if provisional else "measured"
        line = f"{worker.launch_id[:6]} {found} {amount(perf)} load/s; {amount(worker.perf)} before"
        learned = learn_perf(learned, worker, perf) if is_sample else learned
        return FoldResult(worker.replace(perf=perf, provisional=provisional), learned, (line,))
    if worker.state is S.ERROR and report.reported_at <= worker.since:
        return FoldResult(worker, learned)
    if worker.loaded_once:
        seconds = now - worker.since
        took = duration(seconds)
        if worker.state is S.STARTING:
            learned = learn_start(learned, worker, seconds)
    else:
        boot = _boot(worker, report, now)
        took = str(boot)
        learned = learn_boot(learned, worker, boot)
    if is_sample:
        learned = learn_perf(learned, worker, perf)
    estimated = ", estimated" if provisional else ""
    line = f"{worker.log_name} is ready after {took}; {amount(perf)} load/s{estimated}"
    ready = advance(
        worker, S.READY, now, perf=perf, provisional=provisional, loaded_once=True, error="", drain=None
    )
    return FoldResult(ready, learned, (line,))


def _boot(worker: Worker, report: WorkerMetrics, now: float) -> Boot:
    """The worker's first boot. Its container runs since it entered MODEL_LOADING."""
    seconds = now - worker.launched_at
    if worker.state is not S.MODEL_LOADING:
        return Boot(seconds=seconds)
    download = min(report.download_s, max(0.0, now - worker.since))
    return Boot(seconds=seconds, pull=max(0.0, worker.since - worker.launched_at), download=download)


def _report_loading(
    worker: Worker, report: WorkerMetrics, now: float, learned: MachineStats, *, replaced: bool
) -> FoldResult:
    if worker.state is S.READY or (worker.state is S.ERROR and worker.loaded_once and replaced):
        if report.reported_at <= worker.since:
            return FoldResult(worker, learned)
        line = f"{worker.log_name} restarted by itself and loads again"
        return FoldResult(advance(worker, S.STARTING, now), learned, (line,))
    if not worker.loaded_once and S.MODEL_LOADING in LIFECYCLE[worker.state].moves:
        line = f"{worker.log_name} loads its model"
        return FoldResult(advance(worker, S.MODEL_LOADING, now), learned, (line,))
    return FoldResult(worker, learned)


def _report_error(worker: Worker, report: WorkerMetrics, now: float, learned: MachineStats) -> FoldResult:
    error = excerpt(report.error or "it reports an error without a message", _ERROR_BYTES)
    if worker.state is S.ERROR:
        worker = worker.replace(error=error, error_everywhere=report.error_everywhere)
        return FoldResult(worker, learned)
    return fold_error(worker, error, now, learned, everywhere=report.error_everywhere)


def fold_error(
    worker: Worker, error: str, now: float, learned: MachineStats, *, everywhere: bool = False
) -> FoldResult:
    """The worker in ERROR, if its state allows that transition. `everywhere`: no other machine can help."""
    if S.ERROR not in LIFECYCLE[worker.state].moves:
        return FoldResult(worker, learned)
    if not worker.loaded_once:
        learned = learn_failure(learned, worker)
    reboots = (
        0
        if is_hot(worker) and now - worker.since > DEFAULT_TUNING.reboot_forgiven_seconds
        else worker.reboots
    )
    line = f"{worker.log_name} failed while {worker.state.words}: {error}"
    broken = advance(
        worker, S.ERROR, now, error=excerpt(error, _ERROR_BYTES), error_everywhere=everywhere, reboots=reboots
    )
    return FoldResult(broken, learned, (line,))


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
    """The worker after a marketplace operation (`create`, `start`, `stop`, `reboot`, `destroy`, `update`) has ended.

    `error_kind`: `offer_gone`, `instance_gone` and `refused` are final; anything else is retried with growing pauses.
    `instance_id` is the result of a create, `revision` that of an update.
    """
    if worker.operation == operation:
        worker = worker.replace(operation="")
    if ok:
        return _succeeded(worker, operation, now, learned, instance_id, revision, tuning)
    if error_kind == "instance_gone" and operation != "create":
        return fold_instance_gone(worker, "the market knows no such instance", learned)
    line = f"{operation} of {worker.log_name} failed: {excerpt(error, _ERROR_BYTES) or error_kind}"
    if operation == "create":
        return _not_created(worker, error_kind, error, line, now, learned, tuning)
    failures = worker.failures + 1
    worker = worker.replace(
        failures=failures, retry_at=now + _pause(failures), error=excerpt(error, _ERROR_BYTES)
    )
    match operation:
        case "start" if worker.state is S.STARTING:
            worker = advance(worker, S.INACTIVE, now)
        case "start" if worker.state is S.LOADING:
            worker = advance(worker, S.CREATED, now)
        case "update" if worker.state is S.UPDATE_REBOOTING:
            worker = advance(worker, S.UPDATE_READY, now)
        case "stop" if worker.state is S.STOPPING:
            # An earlier `since` makes the planner repeat the stop as soon as the pause is over.
            worker = worker.replace(since=min(worker.since, now - tuning.stop_retry_seconds))
        case "reboot" if worker.state is S.REBOOTING and error_kind == "refused":
            worker = advance(worker, S.ERROR, now)
        case _:
            pass
    return FoldResult(worker, learned, (line,))


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
        # The listing shows when it has stopped; until then the stop is repeated.
        worker = worker.replace(stop_accepted_at=now)
    elif operation == "destroy":
        # The listing shows when it is gone; until then the release is repeated.
        worker = worker.replace(retry_at=now + tuning.destroy_retry_seconds)
    elif operation == "reboot" and worker.state is S.REBOOTING:
        # Reports from before the end of the call come from before the reboot.
        worker = worker.replace(since=now)
    elif operation == "update":
        worker = worker.replace(revision=revision or worker.revision, failures=0, retry_at=0.0, error="")
        if worker.state is S.UPDATE_REBOOTING:
            worker = advance(worker, S.UPDATE_STARTING, now)
    return FoldResult(worker, learned)


def _not_created(
    worker: Worker, error_kind: str, error: str, line: str, now: float, learned: MachineStats, tuning: Tuning
) -> FoldResult:
    """The worker after a failed create call. If it is unknown whether it was rented, it is released by its label."""
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
        learned = remember_hosts(_count_failed_launch(learned, worker), [refused], now)
    if error_kind in ("offer_gone", "refused"):
        return FoldResult(None, learned, (line,))
    if worker.state is S.PENDING:
        worker = advance(worker, S.DESTROYING, now, ran_at_release=True)
        line += "; whether it was rented is unknown, so it is released by its label"
    return FoldResult(worker, learned, (line,))


def _count_failed_launch(learned: MachineStats, worker: Worker) -> MachineStats:
    return learned if worker.loaded_once else learn_failure(learned, worker)


def fold_instance_gone(worker: Worker, why: str, learned: MachineStats) -> FoldResult:
    """The removal of a worker whose instance no longer exists: released as ordered, or lost."""
    if worker.state is S.DESTROYING:
        return FoldResult(None, learned, (f"{worker.launch_id[:6]} is released",))
    line = f"{worker.log_name} vanished while {worker.state.words}: {why}"
    if is_booting(worker):
        learned = _count_failed_launch(learned, worker)
    return FoldResult(None, learned, (line,))


def _pause(failures: int) -> float:
    """Exponential backoff after consecutive failures, seconds: 5, 10, 20 … 300."""
    pause = DEFAULT_TUNING.operation_retry_seconds * 2.0 ** (min(failures, 10) - 1)
    return min(pause, DEFAULT_TUNING.operation_retry_seconds_max)
