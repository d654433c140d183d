"""Failures: boots that do not end, workers that report errors, workers that do not respond."""

import math

from policy.capacity.budget import counted_dollars_per_hour
from policy.capacity.supply import stays_after_drain
from policy.planning.drain import repeat_releases
from policy.planning.plan_builder import PlanBuilder
from policy.state.lifecycle import MARKET_STOPPED, is_booting, is_hot
from policy.state.observation import Observation
from policy.state.worker import Goal, Worker
from policy.tuning import Tuning
from policy.wording import Reason, count, duration, price
from stoker_wire.states import WorkerState as S

_NOT_RUNNING = MARKET_STOPPED | {"", "created", "scheduling"}
"""Marketplace statuses of a start that was accepted and not carried out."""


def repair(builder: PlanBuilder) -> None:
    """Order what recovers broken workers, or releases them."""
    repeat_releases(builder)
    hot = [worker for worker in builder if is_hot(worker)]
    suspects = [worker for worker in hot if worker.suspect_since is not None]
    for worker in builder:
        if not builder.is_free(worker):
            continue
        if worker.state is S.STOPPING:
            _repeat_stop(builder, worker)
        elif worker.state is S.ERROR:
            _repair_error(builder, worker)
        elif is_booting(worker):
            _check_boot(builder, worker)
    # A worker that reports an error serves nothing, so its repair takes no capacity and does not wait. A suspect may
    # still serve: its repair waits for those of both kinds.
    repaired = sum(worker.state in (S.REBOOTING, S.ERROR) for worker in builder)
    at_once = max(1, math.ceil(len(hot) * builder.tuning.repair_share_max)) - repaired
    for worker in suspects:
        if builder.is_free(worker) and stays_after_drain(worker):
            at_once -= _repair_suspect(builder, worker, allowed=at_once > 0)


def boot_deadline(worker: Worker, observation: Observation, tuning: Tuning) -> float:
    """When a booting worker is given up."""
    record = observation.learned.kind(worker.workergroup_id, worker.kind)
    if worker.loaded_once:
        if record is None or not record.start_seconds:
            return worker.since + tuning.start_deadline_seconds_default
        usual = record.start_seconds * tuning.start_deadline_factor
        low, high = tuning.start_deadline_seconds_min, tuning.start_deadline_seconds_max
        return worker.since + min(max(usual, low), high)
    began = worker.since if worker.state is S.PENDING else worker.launched_at
    if record is None or not record.boot_seconds:
        return began + tuning.boot_deadline_seconds_default
    usual = record.boot_seconds * tuning.boot_deadline_factor
    return began + min(max(usual, tuning.boot_deadline_seconds_min), tuning.boot_deadline_seconds_max)


def _check_boot(builder: PlanBuilder, worker: Worker) -> None:
    # A worker that became ready while no engine listened gets time to report it.
    heard_by = builder.observation.listening_since + builder.tuning.start_deadline_seconds_min
    deadline = max(boot_deadline(worker, builder.observation, builder.tuning), heard_by)
    began = worker.since if worker.loaded_once else worker.launched_at
    waited = builder.now - worker.since
    if worker.state is S.STARTING and _is_stuck(worker, builder):
        attempt = worker.starts_given_up + 1
        if attempt >= builder.tuning.start_attempts_max:
            why = (
                f"start {attempt} has not run for {waited:.0f} s; its GPU is probably rented to someone else"
            )
            builder.destroy(worker, Reason(why))
        else:
            why = (
                f"the marketplace accepted the start {waited:.0f} s ago and has not run it;"
                " stopping it, the start is retried later"
            )
            builder.stop(worker, Reason(why))
    elif not worker.loaded_once and _is_stuck(worker, builder, MARKET_STOPPED):
        why = f"{worker.market_status} on the marketplace for {waited:.0f} s before its first load"
        builder.destroy(worker, Reason(why))
    elif builder.now >= deadline:
        took, allowed = builder.now - began, deadline - began
        what = f"{worker.state.words} for {duration(took)}, allowed {duration(allowed)}{_no_report(worker)}"
        builder.record_host_failure(
            worker, f"not ready; {what}", cause=f"not ready while {worker.state.words}"
        )
        builder.destroy(worker, Reason(f"not ready; {what}", {"seconds": took, "seconds_max": allowed}))
    else:
        builder.wakes.append(deadline)
        if worker.market_status in (_NOT_RUNNING if worker.state is S.STARTING else MARKET_STOPPED):
            builder.wakes.append(worker.since + builder.tuning.start_stuck_seconds)


def _no_report(worker: Worker) -> str:
    """The meaning of a running container without any report."""
    if worker.state not in (S.MODEL_LOADING, S.STARTING) or worker.market_status != "running":
        return ""
    if (worker.reported_at or 0.0) >= worker.launched_at:
        return ""
    return (
        "; its container runs, but no worker in it ever reported: the start script ended or cannot reach the engine,"
        " see the instance's log"
    )


def _is_stuck(worker: Worker, builder: PlanBuilder, idle: frozenset[str] = _NOT_RUNNING) -> bool:
    """Whether the marketplace accepted a start and does not carry it out, by a listing made since."""
    listed = builder.observation.listed_at > max(worker.since, builder.observation.listening_since)
    waited = builder.now - worker.since
    return listed and waited >= builder.tuning.start_stuck_seconds and worker.market_status.lower() in idle


def _repair_error(builder: PlanBuilder, worker: Worker) -> None:
    error = worker.error or "no message"
    outdated = builder.is_outdated(worker)
    if worker.loaded_once and worker.reboots < builder.tuning.reboots_max and not outdated:
        if builder.affords(worker.dollars_per_hour, instead_of=counted_dollars_per_hour(worker)):
            builder.reboot(worker, Reason(f"reports an error: {error}"))
            return
        left = price(max(0.0, builder.dollars_left))
        builder.destroy(
            worker, Reason(f"{left} left of the budget, too little for a reboot after error: {error}")
        )
        return
    when = f"after {count(worker.reboots, 'reboot')}" if worker.loaded_once else "before it was ever ready"
    old = ", outdated revision" if outdated else ""
    builder.record_host_failure(worker, error, after_ready=worker.loaded_once)
    builder.destroy(worker, Reason(f"error {when}{old}: {error}"))


def _repair_suspect(builder: PlanBuilder, worker: Worker, *, allowed: bool) -> bool:
    """Reboot, then release, a ready worker that does not respond; True if an operation was ordered."""
    since = worker.suspect_since if worker.suspect_since is not None else builder.now
    begins = max(since, worker.since, builder.observation.listening_since)
    silent = builder.now - begins
    if not builder.is_known:
        return False
    if silent < builder.tuning.suspect_reboot_seconds:
        builder.wakes.append(begins + builder.tuning.suspect_reboot_seconds)
        return False
    why = Reason(f"no response for {duration(silent)}", {"silent_seconds": silent})
    if not allowed:
        builder.wait("busy", worker.launch_id, f"{why}; its reboot waits for other repairs")
        return False
    if worker.reboots < builder.tuning.reboots_max:
        builder.reboot(worker, why)
    else:
        builder.record_host_failure(worker, "no response again after a reboot", after_ready=True)
        builder.destroy(worker, why.also(f"rebooted {count(worker.reboots, 'time')} before"))
    return True


def _repeat_stop(builder: PlanBuilder, worker: Worker) -> None:
    due = max(worker.since, worker.stop_accepted_at) + builder.tuning.stop_retry_seconds
    if builder.now < due:
        builder.wakes.append(due)
    elif not worker.drain or worker.drain.goal is Goal.STOP:
        builder.stop(worker, Reason(f"still not stopped after {duration(builder.now - worker.since)}"))
