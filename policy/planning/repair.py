"""Failures: machines that do not come, break, or fall silent."""

import math

from policy.capacity.budget import counted_dollars_per_hour
from policy.capacity.supply import stays_after_drain
from policy.planning.drain import release_again
from policy.planning.plan_builder import PlanBuilder
from policy.state.lifecycle import is_booting, is_hot
from policy.state.observation import Observation
from policy.state.plan import Destroy, Reboot, Stop
from policy.state.worker import Goal, Worker
from policy.tuning import Tuning
from policy.wording import duration, machine
from stoker_wire.states import WorkerState as S

_NOT_RUNNING = frozenset({"", "stopped", "exited", "frozen", "created", "scheduling"})

_STOPPED = frozenset({"stopped", "exited", "frozen"})
"""What is said of a machine that loads for the first time is none of these, unless it was outbid or stopped by someone."""


def repair(draft: PlanBuilder) -> None:
    """Order what brings broken machines back, or gets rid of them."""
    release_again(draft)
    hot = [worker for worker in draft if is_hot(worker)]
    suspects = [worker for worker in hot if worker.suspect_since is not None]
    ready = len(hot)
    mending = sum([worker.state is S.REBOOTING for worker in draft])
    at_once = max(1, math.ceil(ready * draft.tuning.repair_share_max)) - mending
    for worker in draft:
        if not draft.free(worker):
            continue
        if worker.state is S.STOPPING:
            _stop_again(draft, worker)
        elif worker.state is S.ERROR:
            _mend_error(draft, worker)
        elif is_booting(worker):
            _watch_boot(draft, worker)
    for worker in suspects:
        if draft.free(worker) and stays_after_drain(worker):
            at_once -= _mend_suspect(draft, worker, allowed=at_once > 0)


def boot_deadline(worker: Worker, observation: Observation, tuning: Tuning) -> float:
    """When a booting worker is given up."""
    record = observation.learned.kind(worker.workergroup_id, worker.kind)
    if worker.loaded_once:
        known = record.start_seconds if record is not None and record.starts else 0.0
        allowed = _bounded(
            known * tuning.start_deadline_factor,
            tuning.start_deadline_seconds_min,
            tuning.start_deadline_seconds_max,
        )
        return worker.since + (allowed if known else tuning.start_deadline_seconds_default)
    known = record.boot_seconds if record is not None and record.boots else 0.0
    allowed = _bounded(
        known * tuning.boot_deadline_factor,
        tuning.boot_deadline_seconds_min,
        tuning.boot_deadline_seconds_max,
    )
    began = worker.since if worker.state is S.PENDING else worker.launched_at
    return began + (allowed if known else tuning.boot_deadline_seconds_default)


def _watch_boot(draft: PlanBuilder, worker: Worker) -> None:
    # a worker that became ready while no engine listened has time to say so
    heard_by = draft.observation.listening_since + draft.tuning.start_deadline_seconds_min
    deadline = max(boot_deadline(worker, draft.observation, draft.tuning), heard_by)
    took = draft.now - (worker.since if worker.loaded_once else worker.launched_at)
    name = machine(worker, draft.perfs)
    if worker.state is S.STARTING and _is_stuck(worker, draft):
        waited = draft.now - worker.since
        if worker.starts_given_up + 1 >= draft.tuning.start_attempts_max:
            reason = (
                f"release {name}: start number {worker.starts_given_up + 1} hangs for {waited:.0f} s,"
                " its GPU was probably rented to someone else"
            )
            draft.order(Destroy(launch_id=worker.launch_id, reason=reason))
        else:
            reason = (
                f"give up the start of {name}: the market has not run it for {waited:.0f} s; try again later"
            )
            draft.order(Stop(launch_id=worker.launch_id, reason=reason))
    elif not worker.loaded_once and _is_stuck(worker, draft, _STOPPED):
        why = f"the market says {worker.market_status} for {draft.now - worker.since:.0f} s, and it never loaded"
        draft.order(Destroy(launch_id=worker.launch_id, reason=f"release {name}: {why}"))
    elif draft.now >= deadline:
        allowed = deadline - (worker.since if worker.loaded_once else worker.launched_at)
        what = f"{worker.state.printed} for {duration(took)}, allowed {duration(allowed)}"
        draft.record_host_failure(
            worker, f" did not become ready: {what}", cause=f"not ready in {worker.state.printed}"
        )
        draft.order(Destroy(launch_id=worker.launch_id, reason=f"release {name}: not ready, {what}"))
    else:
        draft.wakes.append(deadline)
        if worker.market_status in (_NOT_RUNNING if worker.state is S.STARTING else _STOPPED):
            draft.wakes.append(worker.since + draft.tuning.start_stuck_seconds)


def _is_stuck(worker: Worker, draft: PlanBuilder, idle: frozenset[str] = _NOT_RUNNING) -> bool:
    """A start that the market has accepted and does not carry out. Needs a look that was made since."""
    seen = draft.observation.listed_at > max(worker.since, draft.observation.listening_since)
    waited = draft.now - worker.since
    return seen and waited >= draft.tuning.start_stuck_seconds and worker.market_status.lower() in idle


def _mend_error(draft: PlanBuilder, worker: Worker) -> None:
    name, error = machine(worker, draft.perfs), worker.error or "no message"
    group = draft.groups.get(worker.workergroup_id)
    outdated = group is not None and worker.revision < group.revision
    if worker.loaded_once and worker.reboots < draft.tuning.reboots_max and not outdated:
        if not draft.affords(worker.dollars_per_hour, instead_of=counted_dollars_per_hour(worker)):
            left = f"${max(0.0, draft.dollars_left):.2f}/h are left of the budget"
            reason = f"release {name}: error, and {left} to run it again: {error}"
            draft.order(Destroy(launch_id=worker.launch_id, reason=reason))
            return
        draft.order(Reboot(launch_id=worker.launch_id, reason=f"reboot {name}: it reports an error: {error}"))
        return
    if worker.loaded_once:
        reason = f"release {name}: error after {worker.reboots} reboot(s): {error}"
    else:
        reason = f"release {name}: error before it was ever ready: {error}"
    if outdated:
        reason += "; its revision is outdated"
    draft.record_host_failure(worker, f": {error}", after_ready=worker.loaded_once)
    draft.order(Destroy(launch_id=worker.launch_id, reason=reason))


def _mend_suspect(draft: PlanBuilder, worker: Worker, *, allowed: bool) -> bool:
    """Reboot, then release, a ready worker that does not answer; True if something was ordered."""
    since = worker.suspect_since if worker.suspect_since is not None else draft.now
    begins = max(since, worker.since, draft.observation.listening_since)
    quiet = draft.now - begins
    name = machine(worker, draft.perfs)
    if not draft.observation.load.is_known(draft.now, draft.tuning.metrics_stale_seconds):
        return False
    if quiet < draft.tuning.suspect_reboot_seconds:
        draft.wakes.append(begins + draft.tuning.suspect_reboot_seconds)
        return False
    if not allowed:
        draft.wait("busy", worker.launch_id, f"{name} does not answer, but enough others are being mended")
        return False
    if worker.reboots < draft.tuning.reboots_max:
        reason = f"reboot {name}: it has not answered for {duration(quiet)}"
        draft.order(Reboot(launch_id=worker.launch_id, reason=reason))
    else:
        reason = f"release {name}: silent for {duration(quiet)} although rebooted {worker.reboots} time(s)"
        draft.record_host_failure(worker, " fell silent again after a reboot", after_ready=True)
        draft.order(Destroy(launch_id=worker.launch_id, reason=reason))
    return True


def _stop_again(draft: PlanBuilder, worker: Worker) -> None:
    due = max(worker.since, worker.stop_accepted_at) + draft.tuning.stop_retry_seconds
    if draft.now < due:
        draft.wakes.append(due)
    elif not worker.drain or worker.drain.goal is Goal.STOP:
        waited = duration(draft.now - worker.since)
        reason = f"stop {machine(worker, draft.perfs)} again: still not stopped after {waited}"
        draft.order(Stop(launch_id=worker.launch_id, reason=reason))


def _bounded(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
