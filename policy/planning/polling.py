"""When the marketplace's instances are listed, and when the next worker is expected."""

from policy.capacity.boot_time import ready_at
from policy.planning.plan_builder import PlanBuilder
from policy.state.host_failures import LAST_FAILURE, last_failure
from policy.state.lifecycle import is_booting, is_hot
from policy.state.plan import PollInstances
from policy.state.worker import ORPHAN_GROUP
from policy.wording import count, duration, machine
from stoker_wire.states import WorkerState as S

_MOVING = frozenset({S.STOPPING, S.DESTROYING})


def list_instances(builder: PlanBuilder) -> None:
    """Order a listing of the instances when one is due."""
    interval, why = _interval(builder)
    due = builder.observation.listed_at + interval
    if builder.observation.look_asked_at > builder.observation.listed_at:
        # Several changes within a short time need one listing.
        interval, why = builder.tuning.listing_seconds_min, "the marketplace told of a change"
        due = min(due, builder.observation.listed_at + interval)
    if builder.observation.listing_in_progress:
        # Its result may change nothing and cause no plan: the next listing needs a time of its own.
        builder.wakes.append(builder.now + interval)
        return
    # A listing that is nearly due joins this plan: alone it would cost a timer and a plan.
    early = (
        builder.tuning.listing_early_share * interval
        if interval >= builder.tuning.listing_seconds_steady
        else 0.0
    )
    if builder.observation.listed_at and builder.now < due - early:
        builder.wakes.append(due)
        return
    listed_at = builder.observation.listed_at
    ago = f"last listed {duration(builder.now - listed_at)} ago" if listed_at else "never listed"
    builder.order(PollInstances(reason=f"{why}; {ago}", whole=_is_whole(builder, interval)))
    builder.wakes.append(builder.now + interval)


def explain_booting(builder: PlanBuilder) -> None:
    """Tell which worker is expected next, and when."""
    booting = [worker for worker in builder if is_booting(worker)]
    if not booting:
        return
    learned = builder.observation.learned
    soonest = min(booting, key=lambda each: (ready_at(each, learned, builder.tuning), each.launch_id))
    eta = ready_at(soonest, learned, builder.tuning)
    when = f"expected in {duration(eta - builder.now)}" if eta > builder.now else "expected any moment"
    more = f"; {len(booting) - 1} more booting" if len(booting) > 1 else ""
    error = soonest.error or last_failure(
        builder.all_failed_hosts, (soonest.workergroup_id,), builder.observation
    )
    why = f"{LAST_FAILURE}{error}" if error else ""
    reason = f"{machine(soonest)} is {soonest.state.words}, {when}{more}{why}"
    builder.wait("booting", soonest.launch_id, reason, max(eta, builder.now))


def _is_whole(builder: PlanBuilder, interval: float) -> bool:
    """Whether to list all instances of the endpoint. While workers change state, mostly only known ones are listed."""
    steady = builder.tuning.listing_seconds_steady
    due = builder.now - builder.observation.listed_whole_at >= steady
    orphans = any(worker.workergroup_id == ORPHAN_GROUP for worker in builder.observation.workers)
    return interval >= steady or due or orphans


def _interval(builder: PlanBuilder) -> tuple[float, str]:
    tuning, workers = builder.tuning, builder.observation.workers
    # An operation in progress has no result to list yet.
    moving = [
        worker
        for worker in workers
        if not worker.operation and (is_booting(worker) or worker.state in _MOVING)
    ]
    # A worker that does not respond may have been outbid or killed. The marketplace knows at once.
    suspects = [worker for worker in workers if worker.suspect_since is not None and is_hot(worker)]
    begun = [worker.since for worker in moving] + [worker.suspect_since or 0.0 for worker in suspects]
    if begun:
        youngest = builder.now - max(begun)
        interval = min(max(youngest / 4, tuning.listing_seconds_min), tuning.listing_seconds_max)
        if moving:
            return interval, f"{count(len(moving), 'worker')} booting, stopping or leaving"
        return interval, f"{count(len(suspects), 'worker')} without response"
    if any(is_hot(worker) for worker in builder):
        return tuning.listing_seconds_steady, "workers run"
    return tuning.listing_seconds_idle, "no worker runs"
