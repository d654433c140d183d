"""A linter for plans: names every operation that would do what must never happen.

It looks at a plan as a stranger would: it does not ask how the planner came to it.
"""

from collections import Counter
from dataclasses import replace
from functools import cached_property

from policy.capacity.budget import BudgetTracker
from policy.capacity.demand import is_known_idle
from policy.capacity.limits import WORKERS_MAX
from policy.planning.drain import is_drained
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
from policy.state.plan_effects import apply_operation, launched_worker
from policy.state.worker import Goal, Worker
from policy.tuning import DEFAULT_TUNING, Tuning
from stoker_wire.endpoint import EndpointState
from stoker_wire.states import WorkerState as S


def find_faults(observation: Observation, plan: Plan, tuning: Tuning = DEFAULT_TUNING) -> tuple[str, ...]:
    """Every fault of the plan, one sentence each; empty when it may be carried out."""
    return drop_faulty(observation, plan, tuning)[1]


def drop_faulty(
    observation: Observation, plan: Plan, tuning: Tuning = DEFAULT_TUNING
) -> tuple[Plan, tuple[str, ...]]:
    """The plan without its faulty operations, and the faults."""
    checker = _Checker(observation, tuning)
    kept, faults = [], []
    for operation in plan.operations:
        fault = checker.fault(operation)
        if fault:
            faults.append(f"{operation.op} {getattr(operation, 'launch_id', '')}: {fault}".replace(" :", ":"))
        else:
            kept.append(operation)
            checker.accept(operation)
    return (replace(plan, operations=tuple(kept)) if faults else plan), tuple(faults)


class _Checker:
    """The fleet as the accepted operations leave it."""

    def __init__(self, observation: Observation, tuning: Tuning) -> None:
        self.observation = observation = mark_unresponsive(observation, tuning)
        self.tuning = tuning
        self.workers = {worker.launch_id: worker for worker in observation.workers}
        self.groups = {group.id: group for group in observation.workergroups}
        self.members = Counter(worker.workergroup_id for worker in observation.workers)
        budget = observation.config.dollars_per_hour_max
        self.purse = None if budget is None else BudgetTracker(budget, observation.workers)
        self.is_over_a_cap = len(self.workers) > observation.config.max_workers or (
            self.purse is not None and self.purse.left < 0
        )
        self.groups_over_their_cap = frozenset(
            group.id
            for group in observation.workergroups
            if group.max_workers is not None and self.members[group.id] > group.max_workers
        )
        self.touched: set[str] = set()
        self.offers_taken: set[int] = set()
        self.known = observation.load.is_known(observation.now, tuning.metrics_stale_seconds)
        self.asleep = is_known_idle(observation, tuning)

    def accept(self, operation: Operation) -> None:
        if isinstance(operation, Recruit):
            self.offers_taken.add(operation.offer.id)
            self.members[operation.workergroup_id] += 1
            self._change(launched_worker(operation, self.observation.now))
        elif not isinstance(operation, Search | PollInstances):
            self._change(apply_operation(self.workers[operation.launch_id], operation, self.observation.now))

    def _change(self, after: Worker) -> None:
        if self.purse is not None:
            self.purse.exchange(self.workers.get(after.launch_id), after)
        self.workers[after.launch_id] = after
        self.touched.add(after.launch_id)

    def fault(self, operation: Operation) -> str:
        if not operation.reason.strip():
            return "it gives no reason"
        if isinstance(operation, PollInstances):
            return ""
        if isinstance(operation, Search):
            known = operation.workergroup_id in self.groups
            return "" if known else f"there is no workergroup {operation.workergroup_id}"
        if operation.launch_id in self.touched:
            return "it is the second operation on one worker"
        if isinstance(operation, Recruit):
            return self._recruit(operation)
        worker = self.workers.get(operation.launch_id)
        if worker is None:
            return "there is no such worker"
        if worker.operation:
            return f"its {worker.operation} is still under way"
        if worker.retry_at > self.observation.now:
            return f"it may not be tried again for {worker.retry_at - self.observation.now:.0f} s"
        try:
            after = apply_operation(worker, operation, self.observation.now)
        except InvalidTransition as fault:
            return str(fault)
        return self._budget(after) or self._requests(operation, worker) or self._cut(operation, worker)

    def _recruit(self, operation: Recruit) -> str:
        seen = self.observation
        group = self.groups.get(operation.workergroup_id)
        if group is None:
            return f"there is no workergroup {operation.workergroup_id}"
        if operation.launch_id not in seen.launch_ids or operation.launch_id in self.workers:
            return "its launch id is not a fresh one"
        if (group.id, operation.offer.id) not in self.offers_found:
            return f"offer {operation.offer.id} is not among those found for workergroup {group.id}"
        if operation.offer.id in self.offers_taken:
            return f"offer {operation.offer.id} is rented twice"
        if operation.offer.machine_id and operation.offer.machine_id in self.failed_machines:
            return f"machine {operation.offer.machine_id} failed lately"
        if seen.deleting or seen.config.endpoint_state is not EndpointState.ACTIVE:
            return "the endpoint is not scaled now"
        if len(self.workers) >= seen.config.max_workers:
            return f"{len(self.workers)} workers exist and max_workers is {seen.config.max_workers}"
        if len(self.workers) >= WORKERS_MAX:
            return f"{len(self.workers)} workers exist and one endpoint can have {WORKERS_MAX}"
        mine = self.members[group.id]
        if group.max_workers is not None and mine >= group.max_workers:
            return f"workergroup {group.id} has {mine} workers and its max_workers is {group.max_workers}"
        return self._budget(launched_worker(operation, seen.now))

    @cached_property
    def offers_found(self) -> frozenset[tuple[int, int]]:
        """(workergroup, offer) of every search."""
        return frozenset(
            (each.workergroup_id, offer.id) for each in self.observation.offers for offer in each.offers
        )

    @cached_property
    def failed_machines(self) -> frozenset[int]:
        """Those that are blocked for a failure of their own."""
        seen = self.observation
        blocked, _ = split(seen.learned.failed_hosts, seen.workers, seen.now)
        return frozenset(each.machine_id for each in blocked)

    def _budget(self, after: Worker) -> str:
        before = self.workers.get(after.launch_id)
        if self.purse is None or self.purse.allows(before, after):
            return ""
        now, budget = self.purse.committed_with(before, after), self.observation.config.dollars_per_hour_max
        return f"it brings the endpoint to ${now:.2f}/h and the budget is ${budget:.2f}/h"

    def _requests(self, operation: Operation, worker: Worker) -> str:
        """A ready worker is stopped, released or updated only when it is empty, broken, or had its time."""
        if not isinstance(operation, Stop | Destroy | Update) or not is_hot(worker):
            return ""
        if worker.suspect_since is not None:
            return ""
        if worker.drain is None:
            return "it takes requests and was not drained"
        if is_drained(worker) or self.observation.now >= worker.drain.deadline:
            return ""
        return "its drain is neither finished nor past its deadline"

    def _cut(self, operation: Operation, worker: Worker) -> str:
        """Scaling is an active endpoint's; and no data is not no load."""
        seen = self.observation
        scaled = seen.config.endpoint_state is EndpointState.ACTIVE and not seen.deleting
        if isinstance(operation, Activate) and not scaled:
            return "the endpoint is not scaled now"
        drains = isinstance(operation, StartDrain) and operation.drain.goal is Goal.STOP
        releases = isinstance(operation, Destroy) and worker.state is S.INACTIVE
        known = self.known or (releases and self.asleep)
        if not scaled or known or not (drains or releases):
            return ""
        return (
            ""
            if self._is_ruled(worker)
            else "it cuts capacity although the engines are silent: no data is not no load"
        )

    def _is_ruled(self, worker: Worker) -> bool:
        """Whether a rule that has nothing to do with load demands the cut."""
        group = self.groups.get(worker.workergroup_id)
        if group is None or self.is_over_a_cap or group.id in self.groups_over_their_cap:
            return True
        return worker.revision < group.revision and worker.failures >= self.tuning.update_attempts_max
