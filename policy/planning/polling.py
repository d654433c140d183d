"""When to look at the marketplace, and what is expected to come."""

from policy.capacity.boot_time import ready_at
from policy.planning.planned_fleet import PlannedFleet
from policy.state.lifecycle import is_booting, is_hot
from policy.state.plan import PollInstances
from policy.state.worker import ORPHAN_GROUP
from policy.wording import duration, machine
from stoker_wire.states import WorkerState as S

_MOVING = frozenset({S.STOPPING, S.DESTROYING})


def look(draft: PlannedFleet) -> None:
    """Order a listing when one is due, and note when the next one is."""
    interval, why = _interval(draft)
    due = draft.observation.listed_at + interval
    if draft.observation.listing_in_progress:
        # What it finds may be no news, and then nobody plans: the next one is due all the same.
        draft.wakes.append(draft.now + interval)
        return
    # A plan that is made anyway takes a listing along that is nearly due: alone it would cost a timer and a plan of its own.
    early = (
        draft.tuning.listing_early_share * interval
        if interval >= draft.tuning.listing_seconds_steady
        else 0.0
    )
    if draft.observation.listed_at and draft.now < due - early:
        draft.wakes.append(due)
        return
    ago = "never listed" if not draft.observation.listed_at else f"last listed {_ago(draft)} ago"
    draft.operations.append(PollInstances(reason=f"{why}, {ago}", whole=_is_whole(draft, interval)))
    draft.wakes.append(draft.now + interval)


def explain_booting(draft: PlannedFleet) -> None:
    """Say which worker is expected next, and when."""
    booting = [worker for worker in draft if is_booting(worker)]
    if not booting:
        return
    learned = draft.observation.learned
    soonest = min(booting, key=lambda each: (ready_at(each, learned, draft.tuning), each.launch_id))
    eta = ready_at(soonest, learned, draft.tuning)
    name = machine(soonest, draft.perfs)
    more = f" and {len(booting) - 1} more" if len(booting) > 1 else ""
    when = f"expected in {duration(eta - draft.now)}" if eta > draft.now else "expected any moment"
    draft.wait(
        "booting", soonest.launch_id, f"{name}{more} {soonest.state.printed}, {when}", max(eta, draft.now)
    )


def _is_whole(draft: PlannedFleet, interval: float) -> bool:
    """Whether to look for instances that no worker stands for, too. While something moves that can wait for its turn."""
    steady = draft.tuning.listing_seconds_steady
    due = draft.now - draft.observation.listed_whole_at >= steady
    strangers = any(worker.workergroup_id == ORPHAN_GROUP for worker in draft.observation.workers)
    return interval >= steady or due or strangers


def _interval(draft: PlannedFleet) -> tuple[float, str]:
    tuning = draft.tuning
    # an order that is still under way has nothing to show yet
    moving = [
        worker
        for worker in draft.observation.workers
        if not worker.operation and (is_booting(worker) or worker.state in _MOVING)
    ]
    # who does not answer may have been outbid or killed, which the market knows at once
    doubted = [
        worker for worker in draft.observation.workers if worker.suspect_since is not None and is_hot(worker)
    ]
    begun = [worker.since for worker in moving] + [worker.suspect_since or 0.0 for worker in doubted]
    if begun:
        youngest = draft.now - max(begun)
        interval = min(max(youngest / 4, tuning.listing_seconds_min), tuning.listing_seconds_max)
        doubt = f"{len(doubted)} worker(s) do not answer"
        return interval, f"{len(moving)} worker(s) boot, stop or leave" if moving else doubt
    if any(is_hot(worker) for worker in draft):
        return tuning.listing_seconds_steady, "workers run"
    return tuning.listing_seconds_idle, "nothing runs"


def _ago(draft: PlannedFleet) -> str:
    return duration(draft.now - draft.observation.listed_at)
