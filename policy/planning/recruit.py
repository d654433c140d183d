"""Renting offers until what is needed is on its way, or a cap, the budget, the market or the caller's ids end it."""

from collections import Counter
from collections.abc import Iterable

from policy.capacity.limits import WORKERS_MAX
from policy.capacity.performance import LOAD_EPSILON
from policy.capacity.supply import takes_requests
from policy.planning.placement import Placement, Ranking
from policy.planning.plan_builder import PlanBuilder
from policy.state.host_failures import shared_causes, split
from policy.state.observation import Offers
from policy.state.plan import Recruit, Search
from policy.wording import load, price
from stoker_wire.market import Offer
from stoker_wire.workergroup import Workergroup

_EVERYTHING = float("inf")


def recruit(draft: PlanBuilder, *, need: float, count: int, why: str, groups: Iterable[Workergroup]) -> None:
    """Rent offers until `need` load/s and `count` workers are on their way; every reason to stop short is a wait."""
    allowed = [group for group in groups if not _is_looping(draft, group)]
    if not allowed or not _offers_at_hand(draft, allowed, why):
        return
    desk = _Desk(draft, allowed)
    while need > LOAD_EPSILON / 2 or count > 0:
        # a workergroup on probation gets one try, and with that the next one has to wait
        allowed = [group for group in allowed if not _is_looping(draft, group)]
        if not allowed:
            return
        if draft.workers_left <= 0:
            _say_full(draft, why)
            return
        open_groups = [group for group in allowed if desk.has_room(group)]
        if not open_groups:
            draft.wait("busy", "endpoint", f"{why}: the workergroups' max_workers are reached")
            return
        chosen = desk.choose(open_groups, need)
        if chosen is None:
            _explain_no_offer(draft, desk, open_groups, why)
            return
        launch_id = draft.next_id()
        if launch_id is None:
            draft.wait("recruiting", "endpoint", f"{why}: more at the next look", draft.now + 1.0)
            return
        draft.order(_recruit(launch_id, chosen, why))
        need -= chosen.perf or _EVERYTHING
        count -= 1


def _say_full(draft: PlanBuilder, why: str) -> None:
    if draft.config.max_workers <= WORKERS_MAX:
        said = f"all {draft.config.max_workers} of max_workers exist"
    else:
        said = f"{WORKERS_MAX} workers exist, the most that one endpoint can have; give a second endpoint a part of its load"
    draft.wait("busy", "endpoint", f"{why}: {said}")


class _Desk:
    """What may be rented, kept up to date with what was."""

    def __init__(self, draft: PlanBuilder, groups: Iterable[Workergroup]) -> None:
        self._draft = draft
        blocked, lifted = split(draft.all_failed_hosts, draft.observation.workers, draft.now)
        self._failed = {each.machine_id for each in blocked}
        self._last = {each.machine_id for each in lifted}
        """Hosts that failed as others did: tried when no other is free."""
        self._rented = {worker.offer_id for worker in draft}
        self._members = Counter(worker.workergroup_id for worker in draft)
        self._ranking = Ranking(groups, fresh_offers(draft), perfs=draft.perfs, workers=draft)
        self._last_ranking = (
            Ranking(groups, fresh_offers(draft), perfs=draft.perfs, workers=draft) if self._last else None
        )

    def has_room(self, group: Workergroup) -> bool:
        """Whether the workergroup's own max_workers allows one more."""
        return group.max_workers is None or self._members[group.id] < group.max_workers

    def choose(self, groups: Iterable[Workergroup], need: float) -> Placement | None:
        """The offer to be rented next, for one of these workergroups; it counts as rented."""
        ids = {group.id for group in groups}

        def eligible(place: Placement) -> bool:
            offer = place.offer
            return place.group.id in ids and self.is_free(offer) and self._draft.affords(offer.dph_total)

        def untried(place: Placement) -> bool:
            return place.offer.machine_id not in self._last and eligible(place)

        chosen = self._ranking.take(need, untried if self._last else eligible)
        if chosen is None and self._last_ranking is not None:
            chosen = self._last_ranking.take(need, eligible)
        if chosen is not None:
            self._rented.add(chosen.offer.id)
            self._members[chosen.group.id] += 1
        return chosen

    def is_free(self, offer: Offer) -> bool:
        """Whether it is not rented by us, and not on a host that failed lately."""
        return offer.id not in self._rented and (not offer.machine_id or offer.machine_id not in self._failed)


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


def fresh_offers(draft: PlanBuilder) -> list[Offers]:
    """Search results young enough, and of the workergroups' current revisions."""
    oldest = draft.now - draft.tuning.offers_age_seconds_max
    return [
        each
        for each in draft.observation.offers
        if each.searched_at >= oldest
        and each.workergroup_id in draft.groups
        and each.revision == draft.groups[each.workergroup_id].revision
    ]


def _offers_at_hand(draft: PlanBuilder, groups: Iterable[Workergroup], why: str) -> bool:
    known = {each.workergroup_id for each in fresh_offers(draft)}
    missing = [group for group in groups if group.id not in known]
    asked = {each.workergroup_id for each in draft.operations if isinstance(each, Search)}
    for group in missing:
        if group.id not in draft.observation.searching and group.id not in asked:
            reason = f"{why}: no offers of the last {draft.tuning.offers_age_seconds_max:.0f} s at hand"
            draft.order(Search(workergroup_id=group.id, reason=reason))
    if missing:
        draft.wait("recruiting", "endpoint", f"{why}: searching the market for offers")
    return not missing


def _is_looping(draft: PlanBuilder, group: Workergroup) -> bool:
    """Launch after launch fails on host after host and none is ready: it is the template, not the machines."""
    failed = [
        each
        for each in draft.all_failed_hosts
        if each.workergroup_id == group.id and each.failed_at > 0 and each.revision == group.revision
    ]
    recent = [each for each in failed if draft.now - each.failed_at < draft.tuning.host_block_seconds]
    shared = shared_causes(recent, draft.observation.workers)
    in_common = max(shared.values(), default=0)
    count = sum(each.times for each in recent)
    if in_common < draft.tuning.shared_failures_max and count < draft.tuning.failures_per_hour_max:
        return False
    if any(takes_requests(worker) and worker.workergroup_id == group.id for worker in draft):
        return False
    last = max(recent, key=lambda each: each.failed_at)
    again = last.failed_at + draft.tuning.failures_pause_seconds
    if again <= draft.now and not any(
        worker.workergroup_id == group.id and worker.launched_at > last.failed_at for worker in draft
    ):
        return False
    reason = (
        f"{count} launches of workergroup {group.id} failed within the hour and none is ready:"
        f" check its template (last: {last.reason})"
    )
    if in_common >= draft.tuning.shared_failures_max:
        reason = (
            f"workergroup {group.id} pauses: {in_common} failures on several hosts are the same, so its template or a"
            f" request causes them, not the hosts; a new revision of it ends the pause (last: {last.reason})"
        )
    draft.wait("worker_failed", f"workergroup {group.id}", reason, max(again, draft.now + 1.0))
    return True


def _explain_no_offer(draft: PlanBuilder, desk: _Desk, groups: Iterable[Workergroup], why: str) -> None:
    results, ids = fresh_offers(draft), {group.id for group in groups}
    if any(desk.is_free(offer) for each in results if each.workergroup_id in ids for offer in each.offers):
        draft.wait_for_budget(f"{why}: recruit more")
        return
    again = min(
        (each.searched_at + draft.tuning.offers_age_seconds_max for each in results), default=draft.now
    )
    errors = "; ".join(each.error for each in results if each.error)
    found = sum(len(each.offers) for each in results)
    if errors:
        reason = f"the market search failed: {errors}"
    elif found:
        reason = f"none of {found} offers is eligible: rented by us, or on hosts that failed lately"
    else:
        reason = "the market has no offer for the workergroup's search"
    draft.wait("no_capacity", "endpoint", f"{why}: {reason}", max(again, draft.now) + 0.5)
