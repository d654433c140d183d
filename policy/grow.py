"""More capacity: call off a drain, wake a cold worker, rent an offer, in this order of speed and price."""

from collections.abc import Iterable

from policy.capacity import LOAD_DUST, takes_requests
from policy.draft import Draft
from policy.fleet import Goal, Worker
from policy.lifecycle import is_hot
from policy.observation import Offers
from policy.placement import Placement, place, price_performance
from policy.plan import Activate, CancelDrain, Recruit, Search
from policy.say import duration, load, machine, price
from stoker_wire.market import Offer
from stoker_wire.states import WorkerState as S
from stoker_wire.workergroup import Workergroup

_EVERYTHING = float("inf")


def grow_hot(
    draft: Draft,
    need: float,
    why: str,
    groups: Iterable[Workergroup] | None = None,
    *,
    rent: float = _EVERYTHING,
) -> None:
    """Bring `need` load/s more towards hot, of which at most `rent` on new machines."""
    allowed = tuple(draft.groups.values()) if groups is None else tuple(groups)
    ids = {group.id for group in allowed}
    left = _call_off_drains(draft, need, why, ids)
    left = _activate(draft, left, why, ids)
    need = min(left, rent - (need - left))
    if need > LOAD_DUST / 2:
        recruit(draft, need=need, count=0, why=why, groups=allowed)


def _call_off_drains(draft: Draft, need: float, why: str, ids: set[int]) -> float:
    draining = [
        worker
        for worker in draft
        if is_hot(worker)
        and worker.drain is not None
        and worker.drain.goal is Goal.STOP
        and worker.suspect_since is None
        and worker.workergroup_id in ids
        and draft.free(worker)
    ]
    # what it holds still takes its share: the rest of its perf is what comes back into service
    target = draft.config.target_queue_time
    free = {each.launch_id: draft.perfs.worker(each) - each.load / target for each in draining}
    for worker in sorted(draining, key=lambda each: -price_performance(each, draft.perfs)):
        if need <= 0:
            break
        if free[worker.launch_id] <= 0:
            continue
        name = machine(worker, draft.perfs)
        if worker.dollars_per_hour - worker.storage_dollars_per_hour > draft.dollars_left_after_drains:
            _wait_for_budget(draft, f"{why}: keep {name}")
            continue
        draft.order(CancelDrain(launch_id=worker.launch_id, reason=f"{why}: keep {name}, it still runs"))
        need -= free[worker.launch_id]
    return need


def _activate(draft: Draft, need: float, why: str, ids: set[int]) -> float:
    """Wake cold workers; what is still needed afterwards, those not counted that will be cold in a moment."""
    cold = [
        worker
        for worker in draft
        if worker.workergroup_id in ids
        and worker.state in (S.INACTIVE, S.CREATED)
        and can_start(draft, worker)
    ]
    while need > 0 and cold:
        best = max(cold, key=lambda each: (_useful(draft, each, need), each.launch_id))
        cold.remove(best)
        if not activate(draft, best, why):
            continue
        need -= draft.perfs.worker(best) or _EVERYTHING
    for worker in draft:
        if need > 0 and worker.loaded_once and worker.workergroup_id in ids and _soon_cold(draft, worker):
            name = machine(worker, draft.perfs)
            draft.wait("booting", worker.launch_id, f"{name} can be woken once it has stopped")
            need -= draft.perfs.worker(worker) or _EVERYTHING
    return need


def _soon_cold(draft: Draft, worker: Worker) -> bool:
    """Whether it can be woken in a moment. A host that is offline accepts a stop and carries it out in hours, if ever: once
    the market has to be asked again, another machine is rented beside it."""
    if worker.state is S.STOPPING:
        return draft.now - worker.since < draft.tuning.stop_repeat_seconds
    return worker.state is S.INACTIVE and worker.operation != ""


def activate(draft: Draft, worker: Worker, why: str) -> bool:
    """Start one cold worker if the budget allows."""
    name = machine(worker, draft.perfs)
    more = worker.dollars_per_hour - worker.burn_dollars_per_hour
    if more > draft.dollars_left:
        _wait_for_budget(draft, f"activate {name}")
        return False
    rest = duration(draft.now - worker.since)
    draft.order(Activate(launch_id=worker.launch_id, reason=f"{why}: activate {name}, cold for {rest}"))
    return True


def can_start(draft: Draft, worker: Worker) -> bool:
    """Whether a start makes sense now: free, and its last start was not given up a moment ago."""
    if not draft.free(worker):
        return False
    again = worker.since + worker.starts_given_up * draft.tuning.start_pause_seconds
    if again > draft.now:
        draft.wakes.append(again)
    return again <= draft.now


def _useful(draft: Draft, worker: Worker, need: float) -> float:
    """Price-performance, counting only what is needed; those of an older revision last."""
    useful = min(draft.perfs.worker(worker), need) / max(worker.dollars_per_hour, 1e-6)
    return useful - (1e9 if worker.revision < draft.groups[worker.workergroup_id].revision else 0.0)


def recruit(draft: Draft, *, need: float, count: int, why: str, groups: Iterable[Workergroup]) -> None:
    """Rent offers until `need` load/s and `count` workers are on their way, or a cap, the market or the caller's ids end
    it; every reason to stop short is a wait."""
    allowed = [group for group in groups if not _is_looping(draft, group)]
    if not allowed or not _offers_at_hand(draft, allowed, why):
        return
    while need > LOAD_DUST / 2 or count > 0:
        # a workergroup on probation gets one try, and with that the next one has to wait
        allowed = [group for group in allowed if not _is_looping(draft, group)]
        if not allowed:
            return
        if draft.workers_left <= 0:
            draft.wait("busy", "endpoint", f"{why}: all {draft.config.max_workers} of max_workers exist")
            return
        open_groups = [group for group in allowed if _room(draft, group) > 0]
        if not open_groups:
            draft.wait("busy", "endpoint", f"{why}: the workergroups' max_workers are reached")
            return
        chosen = _choose(draft, open_groups, need)
        if chosen is None:
            _explain_no_offer(draft, open_groups, why)
            return
        launch_id = draft.next_id()
        if launch_id is None:
            draft.wait("recruiting", "endpoint", f"{why}: more at the next look", draft.now + 1.0)
            return
        draft.order(_recruit(launch_id, chosen, why))
        need -= chosen.perf or _EVERYTHING
        count -= 1


def _recruit(launch_id: str, chosen: Placement, why: str) -> Recruit:
    offer = chosen.offer
    able = f"about {load(chosen.perf)}" if chosen.perf > 0 else "perf not known yet"
    learning = ", a kind not tried yet" if chosen.learning else ""
    return Recruit(
        launch_id=launch_id,
        workergroup_id=chosen.group.id,
        offer=offer,
        reason=f"{why}: recruit {offer.kind} (offer {offer.id}, {able}, {price(offer.dph_total)}{learning})",
        perf_estimate=chosen.perf,
        revision=chosen.group.revision,
    )


def _choose(
    draft: Draft, groups: list[Workergroup], need: float, *, any_price: bool = False
) -> Placement | None:
    failed = {each.machine_id for each in draft.observation.learned.failed_hosts if each.until > draft.now}
    failed.update(each.machine_id for each in draft.failed_hosts)
    rented = {worker.offer_id for worker in draft}
    budget = _EVERYTHING if any_price else draft.dollars_left

    def eligible(offer: Offer) -> bool:
        return (
            offer.id not in rented
            and (not offer.machine_id or offer.machine_id not in failed)
            and offer.dph_total <= budget
        )

    return place(
        groups,
        fresh_offers(draft),
        need=need,
        perfs=draft.perfs,
        workers=draft.workers.values(),
        eligible=eligible,
    )


def fresh_offers(draft: Draft) -> list[Offers]:
    """Search results young enough, and of the workergroups' current revisions."""
    oldest = draft.now - draft.tuning.offers_fresh_seconds
    return [
        each
        for each in draft.observation.offers
        if each.searched_at >= oldest
        and each.workergroup_id in draft.groups
        and each.revision == draft.groups[each.workergroup_id].revision
    ]


def _offers_at_hand(draft: Draft, groups: Iterable[Workergroup], why: str) -> bool:
    known = {each.workergroup_id for each in fresh_offers(draft)}
    missing = [group for group in groups if group.id not in known]
    asked = {each.workergroup_id for each in draft.operations if isinstance(each, Search)}
    for group in missing:
        if group.id not in draft.observation.searching and group.id not in asked:
            reason = f"{why}: no offers of the last {draft.tuning.offers_fresh_seconds:.0f} s at hand"
            draft.order(Search(workergroup_id=group.id, reason=reason))
    if missing:
        draft.wait("recruiting", "endpoint", f"{why}: searching the market for offers")
    return not missing


def _room(draft: Draft, group: Workergroup) -> int:
    if group.max_workers is None:
        return draft.workers_left
    mine = sum(worker.workergroup_id == group.id for worker in draft)
    return min(draft.workers_left, group.max_workers - mine)


def _is_looping(draft: Draft, group: Workergroup) -> bool:
    """Launch after launch fails on host after host and none is ready: it is the template, not the machines."""
    if any(takes_requests(worker) and worker.workergroup_id == group.id for worker in draft):
        return False
    hosts = (*draft.observation.learned.failed_hosts, *draft.failed_hosts)
    failed = [each for each in hosts if each.workergroup_id == group.id and each.failed_at > 0]
    recent = [each for each in failed if draft.now - each.failed_at < draft.tuning.host_failure_seconds]
    if len(recent) < draft.tuning.failures_per_hour_max:
        return False
    last = max(recent, key=lambda each: each.failed_at)
    again = last.failed_at + draft.tuning.failures_pause_seconds
    if again <= draft.now and not any(
        worker.workergroup_id == group.id and worker.launched_at > last.failed_at for worker in draft
    ):
        return False
    reason = (
        f"{len(recent)} launches of workergroup {group.id} failed within the hour and none is ready:"
        f" check its template (last: {last.reason})"
    )
    draft.wait("worker_failed", f"workergroup {group.id}", reason, max(again, draft.now + 1.0))
    return True


def _explain_no_offer(draft: Draft, groups: list[Workergroup], why: str) -> None:
    if _choose(draft, groups, 0.0, any_price=True) is not None:
        _wait_for_budget(draft, f"{why}: recruit more")
        return
    results = fresh_offers(draft)
    again = min((each.searched_at + draft.tuning.offers_fresh_seconds for each in results), default=draft.now)
    errors = "; ".join(each.error for each in results if each.error)
    found = sum(len(each.offers) for each in results)
    if errors:
        reason = f"the market search failed: {errors}"
    elif found:
        reason = f"none of {found} offers is eligible: rented by us, or on hosts that failed lately"
    else:
        reason = "the market has no offer for the workergroup's search"
    draft.wait("no_capacity", "endpoint", f"{why}: {reason}", max(again, draft.now) + 0.5)


def _wait_for_budget(draft: Draft, wish: str) -> None:
    budget = price(draft.config.dollars_per_hour_max or 0.0)
    draft.wait(
        "budget", "endpoint", f"{wish}: {price(max(draft.dollars_left, 0.0))} left of the budget of {budget}"
    )
