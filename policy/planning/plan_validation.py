"""Validates plans: finds every operation that would violate an invariant.

The checks do not depend on the planner's reasoning: they look only at the observation and the operations.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

from policy.capacity.budget import BudgetTracker
from policy.capacity.demand import is_known_idle
from policy.capacity.limits import WORKERS_MAX
from policy.planning.drain import is_drained
from policy.state.apply_operation import apply_operation, launched_worker
from policy.state.host_failures import split
from policy.state.lifecycle import InvalidTransition, is_hot
from policy.state.liveness import mark_unresponsive
from policy.state.observation import Observation
from policy.state.plan import (
    Activate,
    Destroy,
    Operation,
    Plan,
    PollInstances,
    Recruit,
    Search,
    StartDrain,
    Stop,
    Update,
)
from policy.state.worker import Goal, Worker
from policy.tuning import DEFAULT_TUNING, Tuning
from stoker_wire.endpoint import EndpointState
from stoker_wire.states import WorkerState as S
from stoker_wire.workergroup import Workergroup


def drop_faulty(
    observation: Observation, plan: Plan, tuning: Tuning = DEFAULT_TUNING
) -> tuple[Plan, tuple[str, ...]]:
    """The plan without its faulty operations, and the faults, one sentence each."""
    validator = _validator(observation, tuning)
    kept, faults = [], []
    for operation in plan.operations:
        fault = validator.fault(operation)
        if fault:
            faults.append(f"{operation.op} {getattr(operation, 'launch_id', '')}: {fault}".replace(" :", ":"))
        else:
            kept.append(operation)
            validator.accept(operation)
    return (replace(plan, operations=tuple(kept)) if faults else plan), tuple(faults)


def _validator(observation: Observation, tuning: Tuning) -> "_Validator":
    observation = mark_unresponsive(observation, tuning)
    config, members = observation.config, Counter(each.workergroup_id for each in observation.workers)
    limit = config.dollars_per_hour_max
    budget = None if limit is None else BudgetTracker.of(limit, observation.workers)
    blocked, _ = split(observation.learned.failed_hosts, observation.workers, observation.now)
    return _Validator(
        observation=observation,
        tuning=tuning,
        workers={worker.launch_id: worker for worker in observation.workers},
        groups={group.id: group for group in observation.workergroups},
        members=members,
        budget=budget,
        offers_found=frozenset(
            (each.workergroup_id, offer.id) for each in observation.offers for offer in each.offers
        ),
        blocked_machines=frozenset(each.machine_id for each in blocked),
        is_over_a_cap=len(observation.workers) > config.max_workers
        or (budget is not None and budget.left < 0),
        groups_over_their_cap=frozenset(
            group.id
            for group in observation.workergroups
            if group.max_workers is not None and members[group.id] > group.max_workers
        ),
    )


@dataclass(slots=True, kw_only=True)
class _Validator:
    """Checks operations one by one against the fleet that the accepted ones leave."""

    observation: Observation
    """With unresponsive workers marked."""
    tuning: Tuning
    workers: dict[str, Worker]
    groups: dict[int, Workergroup]
    members: Counter[int]
    """Number of workers by workergroup."""
    budget: BudgetTracker | None
    offers_found: frozenset[tuple[int, int]]
    """(workergroup, offer) of every search."""
    blocked_machines: frozenset[int]
    is_over_a_cap: bool
    """max_workers or the budget was exceeded before the plan."""
    groups_over_their_cap: frozenset[int]
    ordered: set[str] = field(default_factory=set)
    offers_taken: set[int] = field(default_factory=set)

    def accept(self, operation: Operation) -> None:
        """Apply an operation to the fleet."""
        if isinstance(operation, Recruit):
            self.offers_taken.add(operation.offer.id)
            self.members[operation.workergroup_id] += 1
            self._change(launched_worker(operation, self.observation.now))
        elif not isinstance(operation, Search | PollInstances):
            self._change(apply_operation(self.workers[operation.launch_id], operation, self.observation.now))

    def _change(self, after: Worker) -> None:
        if self.budget is not None:
            self.budget.exchange(self.workers.get(after.launch_id), after)
        self.workers[after.launch_id] = after
        self.ordered.add(after.launch_id)

    def fault(self, operation: Operation) -> str:
        """Which invariant the operation would violate; empty: none."""
        if not operation.reason.strip():
            return "it gives no reason"
        if isinstance(operation, PollInstances):
            return ""
        if isinstance(operation, Search):
            known = operation.workergroup_id in self.groups
            return "" if known else f"there is no workergroup {operation.workergroup_id}"
        if operation.launch_id in self.ordered:
            return "it is the second operation on one worker"
        if isinstance(operation, Recruit):
            return self._recruit_fault(operation)
        worker = self.workers.get(operation.launch_id)
        if worker is None:
            return "there is no such worker"
        if worker.operation:
            return f"its {worker.operation} is still in progress"
        if worker.retry_at > self.observation.now:
            return f"it may not be retried for {worker.retry_at - self.observation.now:.0f} s"
        try:
            after = apply_operation(worker, operation, self.observation.now)
        except InvalidTransition as fault:
            return str(fault)
        return (
            self._budget_fault(after)
            or self._request_fault(operation, worker)
            or self._scaling_fault(operation, worker)
        )

    def _recruit_fault(self, operation: Recruit) -> str:
        observation, offer = self.observation, operation.offer
        group = self.groups.get(operation.workergroup_id)
        if group is None:
            return f"there is no workergroup {operation.workergroup_id}"
        if operation.launch_id not in observation.launch_ids or operation.launch_id in self.workers:
            return "its launch id is not an unused one"
        if (group.id, offer.id) not in self.offers_found:
            return f"offer {offer.id} is not among those found for workergroup {group.id}"
        if offer.id in self.offers_taken:
            return f"offer {offer.id} is rented twice"
        if offer.machine_id and offer.machine_id in self.blocked_machines:
            return f"machine {offer.machine_id} failed recently"
        if not self._is_scaled:
            return "the endpoint is not scaled now"
        if len(self.workers) >= observation.config.max_workers:
            return f"{len(self.workers)} workers exist and max_workers is {observation.config.max_workers}"
        if len(self.workers) >= WORKERS_MAX:
            return f"{len(self.workers)} workers exist and one endpoint can have {WORKERS_MAX}"
        mine = self.members[group.id]
        if group.max_workers is not None and mine >= group.max_workers:
            return f"workergroup {group.id} has {mine} workers and its max_workers is {group.max_workers}"
        return self._budget_fault(launched_worker(operation, observation.now))

    @property
    def _is_scaled(self) -> bool:
        observation = self.observation
        return observation.config.endpoint_state is EndpointState.ACTIVE and not observation.deleting

    def _budget_fault(self, after: Worker) -> str:
        before = self.workers.get(after.launch_id)
        if self.budget is None or self.budget.allows(before, after):
            return ""
        cost, limit = self.budget.committed_with(before, after), self.observation.config.dollars_per_hour_max
        return f"it brings the endpoint to ${cost:.2f}/h and the budget is ${limit:.2f}/h"

    def _request_fault(self, operation: Operation, worker: Worker) -> str:
        """A ready worker is stopped, released or updated only if it is empty, unresponsive or past its deadline."""
        if not isinstance(operation, Stop | Destroy | Update) or not is_hot(worker):
            return ""
        if worker.suspect_since is not None:
            return ""
        if worker.drain is None:
            return "it takes requests and was not drained"
        if is_drained(worker) or self.observation.now >= worker.drain.deadline:
            return ""
        return "its drain is neither finished nor past its deadline"

    def _scaling_fault(self, operation: Operation, worker: Worker) -> str:
        """Only an active endpoint is scaled, and capacity is removed only if the load is known."""
        if isinstance(operation, Activate) and not self._is_scaled:
            return "the endpoint is not scaled now"
        drains = isinstance(operation, StartDrain) and operation.drain.goal is Goal.STOP
        releases = isinstance(operation, Destroy) and worker.state is S.INACTIVE
        if not self._is_scaled or not (drains or releases) or self._is_required(worker):
            return ""
        observation, stale = self.observation, self.tuning.metrics_stale_seconds
        if observation.load.is_known(observation.now, stale):
            return ""
        if releases and is_known_idle(observation, self.tuning):
            return ""
        return "it removes capacity although metrics are missing; missing data is not zero load"

    def _is_required(self, worker: Worker) -> bool:
        """Whether a rule that does not depend on load demands the removal."""
        group = self.groups.get(worker.workergroup_id)
        if (
            worker.asked is not None
            or group is None
            or self.is_over_a_cap
            or group.id in self.groups_over_their_cap
        ):
            return True
        return worker.revision < group.revision and worker.failures >= self.tuning.update_attempts_max
