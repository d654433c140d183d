"""Rent offers until the needed capacity is on its way or a cap, the budget or the market ends it."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from policy.capacity.limits import WORKERS_MAX
from policy.capacity.performance import LOAD_EPSILON
from policy.capacity.supply import takes_requests
from policy.planning.placement import Placement, Ranking
from policy.planning.plan_builder import PlanBuilder
from policy.state.host_failures import LAST_FAILURE, last_failure, shared_causes, split
from policy.state.observation import Offers
from policy.state.operator_actions import is_held
from policy.state.plan import Recruit, Search
from policy.state.worker import HostFailure
from policy.wording import Reason, capacity, price
from stoker_wire.market import Offer
from stoker_wire.workergroup import Workergroup


def recruit(
    builder: PlanBuilder, *, need: float, count: int, why: Reason, groups: Iterable[Workergroup]
) -> None:
    """Rent offers until `need` load/s and `count` workers are on their way. What prevents more becomes a wait."""
    allowed = [group for group in groups if not _is_failing(builder, group)]
    if allowed and builder.workers_left <= 0:
        _wait_for_room(builder, why)  # offers that could not be rented are not searched for
        return
    if not allowed or not _has_offers(builder, allowed, why):
        return
    choice = _OfferChoice.of(builder, allowed)
    while need > LOAD_EPSILON / 2 or count > 0:
        # A failing workergroup gets one attempt; the next attempt has to wait for its result.
        allowed = [group for group in allowed if not _is_failing(builder, group)]
        if not allowed:
            return
        if builder.workers_left <= 0:
            _wait_for_room(builder, why)
            return
        open_groups = [group for group in allowed if choice.has_room(group)]
        if not open_groups:
            builder.wait("busy", "endpoint", f"{why}; max_workers of its workergroups is reached")
            return
        chosen = choice.take(open_groups, need)
        if chosen is None:
            _explain_no_offer(builder, choice, open_groups, why)
            return
        launch_id = builder.next_launch_id()
        if launch_id is None:
            builder.wait("recruiting", "endpoint", f"{why}; more in the next plan", builder.now + 1.0)
            return
        builder.order(_recruit(launch_id, chosen, why))
        need -= chosen.perf or math.inf
        count -= 1


def _wait_for_room(builder: PlanBuilder, why: Reason) -> None:
    limit = f"max_workers {builder.config.max_workers} is reached"
    if builder.config.max_workers > WORKERS_MAX:
        limit = f"{WORKERS_MAX} workers is the limit of one endpoint, split the load over two endpoints"
    if held := sum(is_held(worker) for worker in builder):
        limit += f", {held} of them taken out of service by an operator"
    builder.wait("busy", "endpoint", f"{why}; {limit}")


@dataclass(slots=True)
class _OfferChoice:
    """The offers that may be rented, without those taken in this plan."""

    builder: PlanBuilder
    ranking: Ranking
    last_ranking: Ranking
    blocked: frozenset[int]
    """Hosts that failed."""
    last_resort: frozenset[int]
    """Hosts whose failure is not their own: tried when no other is free."""
    rented: set[int]
    members: Counter[int]

    @classmethod
    def of(cls, builder: PlanBuilder, groups: list[Workergroup]) -> "_OfferChoice":
        """The fresh offers for these workergroups, on hosts that are not blocked."""
        offers, perfs, tuning = fresh_offers(builder), builder.perfs, builder.tuning
        blocked, shared = split(builder.all_failed_hosts, builder.observation.workers, builder.now)
        last = groups if shared else ()
        return cls(
            builder,
            Ranking.of(groups, offers, perfs=perfs, workers=builder, tuning=tuning),
            Ranking.of(last, offers, perfs=perfs, workers=builder, tuning=tuning),
            frozenset(each.machine_id for each in blocked),
            frozenset(each.machine_id for each in shared),
            {worker.offer_id for worker in builder},
            Counter(worker.workergroup_id for worker in builder),
        )

    def has_room(self, group: Workergroup) -> bool:
        """Whether the workergroup's max_workers allows one more worker."""
        return group.max_workers is None or self.members[group.id] < group.max_workers

    def take(self, groups: Iterable[Workergroup], need: float) -> Placement | None:
        """The next offer to rent for one of these workergroups. It counts as rented."""
        ids = {group.id for group in groups}

        def eligible(placement: Placement) -> bool:
            offer = placement.offer
            return placement.group.id in ids and self.is_free(offer) and self.builder.affords(offer.dph_total)

        def preferred(placement: Placement) -> bool:
            return placement.offer.machine_id not in self.last_resort and eligible(placement)

        chosen = self.ranking.take(need, preferred if self.last_resort else eligible)
        if chosen is None and self.last_resort:
            chosen = self.last_ranking.take(need, eligible)
        if chosen is not None:
            self.rented.add(chosen.offer.id)
            self.members[chosen.group.id] += 1
        return chosen

    def is_free(self, offer: Offer) -> bool:
        """Whether the offer is not rented by this endpoint, and not on a blocked host."""
        return offer.id not in self.rented and (not offer.machine_id or offer.machine_id not in self.blocked)


def _recruit(launch_id: str, chosen: Placement, why: Reason) -> Recruit:
    offer = chosen.offer
    new = ", new kind" if chosen.is_new_kind else ""
    adds = f" adds {capacity(chosen.perf)}" if chosen.perf > 0 else ", perf unknown"
    reason = why.also(
        f"{offer.kind} ({price(offer.dph_total)}){adds}{new}",
        perf=chosen.perf,
        dollars_per_hour=offer.dph_total,
        boot_dollars=offer.dph_total * chosen.boot_seconds / 3600,
        offer=float(offer.id),
    )
    return Recruit(
        launch_id=launch_id,
        workergroup_id=chosen.group.id,
        offer=offer,
        reason=reason.text,
        numbers=dict(reason.numbers),
        perf_estimate=chosen.perf,
        revision=chosen.group.revision,
    )


def fresh_offers(builder: PlanBuilder) -> list[Offers]:
    """Search results that are recent and of the workergroups' current revisions."""
    oldest = builder.now - builder.tuning.offers_age_seconds_max
    return [
        each
        for each in builder.observation.offers
        if each.searched_at >= oldest
        and each.workergroup_id in builder.groups
        and each.revision == builder.groups[each.workergroup_id].revision
    ]


def _has_offers(builder: PlanBuilder, groups: Iterable[Workergroup], why: Reason) -> bool:
    """Whether every workergroup has fresh offers; orders the searches that are missing."""
    known = {each.workergroup_id for each in fresh_offers(builder)}
    missing = [group for group in groups if group.id not in known]
    ordered = {each.workergroup_id for each in builder.operations if isinstance(each, Search)}
    for group in missing:
        if group.id not in builder.observation.searching and group.id not in ordered:
            reason = why.also(f"no offers younger than {builder.tuning.offers_age_seconds_max:.0f} s")
            builder.order(Search(workergroup_id=group.id, reason=reason.text, numbers=dict(reason.numbers)))
    if missing:
        builder.wait("recruiting", "endpoint", f"{why}; searching the marketplace for offers")
    return not missing


def _is_failing(builder: PlanBuilder, group: Workergroup) -> bool:
    """Whether the workergroup pauses: launches fail on several hosts and none is ready, so the template is at fault."""
    failed = [
        each
        for each in builder.all_failed_hosts
        if each.workergroup_id == group.id and each.failed_at > 0 and each.revision == group.revision
    ]
    recent = [each for each in failed if builder.now - each.failed_at < builder.tuning.host_block_seconds]
    shared = shared_causes(recent, builder.observation.workers)
    same = max(shared.values(), default=0)
    failures = sum(each.times for each in recent)
    hopeless = [each for each in recent if each.everywhere]
    if hopeless and _is_hopeless(builder, group, hopeless):
        return True
    if same < builder.tuning.shared_failures_max and failures < builder.tuning.failures_per_hour_max:
        return False
    if any(takes_requests(worker) and worker.workergroup_id == group.id for worker in builder):
        return False
    last = max(recent, key=lambda each: each.failed_at)
    again = last.failed_at + builder.tuning.failures_pause_seconds
    if again <= builder.now and not any(
        worker.workergroup_id == group.id and worker.launched_at > last.failed_at for worker in builder
    ):
        return False
    reason = (
        f"{failures} launches of workergroup {group.id} failed within an hour and none is ready;"
        f" check its template (last: {last.reason})"
    )
    if same >= builder.tuning.shared_failures_max:
        reason = (
            f"workergroup {group.id} pauses after {same} equal failures on several hosts; check its template or the"
            f" request, a new revision ends the pause (last: {last.reason})"
        )
    builder.wait("worker_failed", f"workergroup {group.id}", reason, max(again, builder.now + 1.0))
    return True


def _is_hopeless(builder: PlanBuilder, group: Workergroup, failures: list[HostFailure]) -> bool:
    """Whether the workergroup pauses because no machine can run it. A pause per failure, then one attempt an hour."""
    tuning = builder.tuning
    if any(
        worker.workergroup_id == group.id and worker.revision == group.revision and worker.loaded_once
        for worker in builder
    ):
        return False  # it runs on another machine, so the failure says less than it claims
    last = max(failures, key=lambda each: each.failed_at)
    pause = tuning.failures_pause_seconds if len(failures) == 1 else tuning.host_block_seconds
    again = last.failed_at + pause
    if again <= builder.now:
        return False
    reason = f"no machine can run workergroup {group.id} before its template, model or secrets change: {last.reason}"
    builder.wait("worker_failed", f"workergroup {group.id}", reason, max(again, builder.now + 1.0))
    return True


def _explain_no_offer(
    builder: PlanBuilder, choice: _OfferChoice, groups: Iterable[Workergroup], why: Reason
) -> None:
    results, ids = fresh_offers(builder), {group.id for group in groups}
    if any(choice.is_free(offer) for each in results if each.workergroup_id in ids for offer in each.offers):
        builder.wait_for_budget(why)
        return
    again = min(
        (each.searched_at + builder.tuning.offers_age_seconds_max for each in results), default=builder.now
    )
    errors = "; ".join(each.error for each in results if each.error)
    found = sum(len(each.offers) for each in results)
    if errors:
        reason = f"the marketplace search failed: {errors}"
    elif found:
        reason = f"no usable offer among {found}: each is rented already or on a host that failed"
    else:
        reason = "the marketplace has no offer for the workergroup's search"
    if error := last_failure(builder.all_failed_hosts, ids, builder.observation):
        reason += f"{LAST_FAILURE}{error}"
    builder.wait("no_capacity", "endpoint", f"{why}; {reason}", max(again, builder.now) + 0.5)
