"""A linter for plans: names every operation that would do what must never happen.

It looks at a plan as a stranger would: it does not ask how the planner came to it.
"""

from dataclasses import replace

from policy.apply import launched, ordered
from policy.capacity import committed_dollars_per_hour, is_known_asleep
from policy.fleet import Goal, Worker
from policy.leaving import is_drained
from policy.lifecycle import Impossible, is_hot
from policy.observation import Observation
from policy.plan import Activate, Destroy, Look, Operation, Plan, Recruit, Search, StartDrain, Stop, Update
from policy.silence import with_silent_marked
from policy.tuning import DEFAULT_TUNING, Tuning
from stoker_wire.endpoint import EndpointState
from stoker_wire.states import WorkerState as S

_ROUNDING = 1e-9


def check(observation: Observation, plan: Plan, tuning: Tuning = DEFAULT_TUNING) -> tuple[str, ...]:
    """Every fault of the plan, one sentence each; empty when it may be carried out."""
    return sound(observation, plan, tuning)[1]


def sound(
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
        self.observation = observation = with_silent_marked(observation, tuning)
        self.tuning = tuning
        self.before = {worker.launch_id: worker for worker in observation.workers}
        self.workers = dict(self.before)
        self.touched: set[str] = set()
        self.offers_taken: set[int] = set()
        self.known = observation.load.is_known(observation.now, tuning.metrics_stale_seconds)
        self.asleep = is_known_asleep(observation, tuning)

    def accept(self, operation: Operation) -> None:
        if isinstance(operation, Recruit):
            self.workers[operation.launch_id] = launched(operation, self.observation.now)
            self.offers_taken.add(operation.offer.id)
            self.touched.add(operation.launch_id)
        elif not isinstance(operation, Search | Look):
            worker = self.workers[operation.launch_id]
            self.workers[operation.launch_id] = ordered(worker, operation, self.observation.now)
            self.touched.add(operation.launch_id)

    def fault(self, operation: Operation) -> str:
        if not operation.reason.strip():
            return "it gives no reason"
        if isinstance(operation, Look):
            return ""
        if isinstance(operation, Search):
            known = any(group.id == operation.workergroup_id for group in self.observation.workergroups)
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
            after = ordered(worker, operation, self.observation.now)
        except Impossible as fault:
            return str(fault)
        return (
            self._budget(operation, after)
            or self._requests(operation, worker)
            or self._cut(operation, worker)
        )

    def _recruit(self, operation: Recruit) -> str:
        seen = self.observation
        group = next((each for each in seen.workergroups if each.id == operation.workergroup_id), None)
        if group is None:
            return f"there is no workergroup {operation.workergroup_id}"
        if operation.launch_id not in seen.launch_ids or operation.launch_id in self.workers:
            return "its launch id is not a fresh one"
        found = {offer.id for each in seen.offers if each.workergroup_id == group.id for offer in each.offers}
        if operation.offer.id not in found:
            return f"offer {operation.offer.id} is not among those found for workergroup {group.id}"
        if operation.offer.id in self.offers_taken:
            return f"offer {operation.offer.id} is rented twice"
        failed = {each.machine_id for each in seen.learned.failed_hosts if each.until > seen.now}
        if operation.offer.machine_id and operation.offer.machine_id in failed:
            return f"machine {operation.offer.machine_id} failed lately"
        if seen.deleting or seen.config.endpoint_state is not EndpointState.ACTIVE:
            return "the endpoint is not scaled now"
        if len(self.workers) >= seen.config.max_workers:
            return f"{len(self.workers)} workers exist and max_workers is {seen.config.max_workers}"
        mine = sum(worker.workergroup_id == group.id for worker in self.workers.values())
        if group.max_workers is not None and mine >= group.max_workers:
            return f"workergroup {group.id} has {mine} workers and its max_workers is {group.max_workers}"
        return self._budget(operation, launched(operation, seen.now))

    def _budget(self, operation: Operation, after: Worker) -> str:
        budget = self.observation.config.dollars_per_hour_max
        if budget is None:
            return ""
        was = committed_dollars_per_hour(self.workers.values())
        now = committed_dollars_per_hour((self.workers | {after.launch_id: after}).values())
        if now <= max(was, budget) + _ROUNDING:
            return ""
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
        seen = self.observation
        group = next((each for each in seen.workergroups if each.id == worker.workergroup_id), None)
        if group is None or len(self.before) > seen.config.max_workers:
            return True
        mine = sum(each.workergroup_id == group.id for each in self.before.values())
        if group.max_workers is not None and mine > group.max_workers:
            return True
        if worker.revision < group.revision and worker.failures >= self.tuning.update_attempts_max:
            return True
        budget = seen.config.dollars_per_hour_max
        return budget is not None and committed_dollars_per_hour(self.before.values()) > budget
