"""A plan under construction: the operations ordered so far, and the workers as these operations leave them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any, Concatenate, ParamSpec

from policy.capacity.boot_time import is_slower_than_start, overdue_at
from policy.capacity.budget import BudgetTracker
from policy.capacity.limits import workers_max
from policy.capacity.performance import PerfEstimates
from policy.capacity.supply import Supply, measure_supply
from policy.state.apply_operation import apply_operation, launched_worker
from policy.state.host_failures import cause_of
from policy.state.machine_stats import remember_hosts
from policy.state.observation import Memory, Observation
from policy.state.plan import (
    Activate,
    CancelDrain,
    Destroy,
    Operation,
    Plan,
    Reboot,
    Recruit,
    StartDrain,
    Stop,
    Targets,
    Update,
    Wait,
)
from policy.state.worker import Drain, Goal, HostFailure, Worker
from policy.tuning import Tuning
from policy.wording import Reason, price
from stoker_wire.workergroup import Workergroup

_P = ParamSpec("_P")


class PlanBuilder:
    """Collects operations and waits. Each step works on the workers as the previous steps leave them.

    The builder knows the fleet, the caps and the budget, but no demand: a deletion is planned without a forecast.
    `observation` has unresponsive workers marked.
    """

    def __init__(self, observation: Observation, tuning: Tuning, perfs: PerfEstimates) -> None:
        self.observation = observation
        self.tuning = tuning
        self.perfs = perfs
        self.now = observation.now
        self.config = observation.config
        self.memory = observation.memory or Memory()
        self.groups: dict[int, Workergroup] = {group.id: group for group in observation.workergroups}
        self.workers: dict[str, Worker] = {worker.launch_id: worker for worker in observation.workers}
        self.operations: list[Operation] = []
        self.waits: dict[Wait, None] = {}
        """Each once, in the order in which they were added."""
        self.wakes: list[float] = []
        """Times at which a new plan is due without any event."""
        self.failed_hosts: list[HostFailure] = []
        self._step = ""
        self._ordered: set[str] = set()
        """Workers with an operation in this plan."""
        self._launch_ids = [each for each in observation.launch_ids if each not in self.workers]
        self._supply: Supply | None = None
        """Valid until the next operation."""

    def __iter__(self) -> Iterator[Worker]:
        """The workers after the operations so far."""
        return iter(tuple(self.workers.values()))

    def __repr__(self) -> str:
        return f"<PlanBuilder {len(self.operations)} operations on {len(self.workers)} workers>"

    def step(
        self, function: Callable[Concatenate["PlanBuilder", _P], None], *args: _P.args, **more: _P.kwargs
    ) -> None:
        """Run one step of the planner. Its operations carry its name: the plan's report, step by step."""
        self._step = function.__name__
        function(self, *args, **more)

    # -- the fleet

    @property
    def is_known(self) -> bool:
        """Whether the engines reported recently. If not, missing reports are no evidence of anything."""
        return self.observation.load.is_known(self.now, self.tuning.metrics_stale_seconds)

    @cached_property
    def has_outdated(self) -> bool:
        """Whether any worker has an older revision than its workergroup."""
        return any(map(self.is_outdated, self.observation.workers))

    def is_outdated(self, worker: Worker) -> bool:
        """Whether the worker has an older revision than its workergroup."""
        group = self.groups.get(worker.workergroup_id)
        return group is not None and worker.revision < group.revision

    def is_free(self, worker: Worker) -> bool:
        """Whether an operation may be ordered: none is in progress or ordered, and no retry pause runs."""
        if worker.retry_at > self.now:
            self.wakes.append(worker.retry_at)
        return not worker.operation and worker.retry_at <= self.now and worker.launch_id not in self._ordered

    def grew_recently(self) -> bool:
        """Whether hot capacity was added in the last `scale_up_hold_seconds`: it is not removed at once."""
        grew_at, hold = self.memory.grew_at, self.tuning.scale_up_hold_seconds
        if grew_at is None or self.now - grew_at >= hold:
            return False
        self.wakes.append(grew_at + hold)
        return True

    def supply(self) -> Supply:
        """The capacity after the operations so far."""
        if self._supply is None:
            self._supply = measure_supply(
                self.workers.values(),
                self.perfs,
                is_overtaken=self._is_overtaken,
                is_overdue=self._is_overdue,
            )
        return self._supply

    def supply_of(self, workers: Iterable[Worker]) -> Supply:
        """The capacity of these workers alone."""
        return measure_supply(workers, self.perfs)

    def _is_overtaken(self, booting: Worker) -> bool:
        return is_slower_than_start(booting, self.observation.learned, self.now, self.tuning)

    def _is_overdue(self, booting: Worker) -> bool:
        due = overdue_at(booting, self.observation.learned, self.tuning)
        if due > self.now:
            self.wakes.append(due)
        return due <= self.now

    # -- caps

    @property
    def workers_left(self) -> int:
        """How many more workers may exist."""
        return workers_max(self.config) - len(self.workers)

    @cached_property
    def budget(self) -> BudgetTracker | None:
        """The budget after the operations so far; None: there is no budget."""
        if self.config.dollars_per_hour_max is None:
            return None
        return BudgetTracker.of(self.config.dollars_per_hour_max, self.workers.values())

    @property
    def dollars_left(self) -> float:
        """$/h that may still be committed."""
        return float("inf") if self.budget is None else self.budget.left

    def affords(self, dollars_per_hour: float, instead_of: float = 0.0) -> bool:
        """Whether the budget allows this price in addition, or in place of what a worker costs now."""
        return self.budget is None or self.budget.affords(dollars_per_hour, instead_of)

    def next_launch_id(self) -> str | None:
        """An unused launch id; None: the observation has no more."""
        return self._launch_ids.pop(0) if self._launch_ids else None

    # -- operations

    def order(self, operation: Operation) -> None:
        """Add an operation to the plan and apply it to the fleet."""
        operation = replace(operation, step=self._step)
        self.operations.append(operation)
        if isinstance(operation, Recruit):
            self._change(None, launched_worker(operation, self.now))
        elif launch_id := getattr(operation, "launch_id", ""):
            self._ordered.add(launch_id)
            worker = self.workers[launch_id]
            self._change(worker, apply_operation(worker, operation, self.now))

    def _change(self, before: Worker | None, after: Worker) -> None:
        if "budget" in self.__dict__ and self.budget is not None:
            self.budget.exchange(before, after)
        self.workers[after.launch_id] = after
        self._supply = None

    def activate(self, worker: Worker, why: Reason) -> None:
        """Start a cold worker."""
        self._order_on(Activate, worker, why)

    def stop(self, worker: Worker, why: Reason) -> None:
        """Stop a worker and keep its disk."""
        self._order_on(Stop, worker, why)

    def destroy(self, worker: Worker, why: Reason) -> None:
        """Release a worker for good."""
        self._order_on(Destroy, worker, why)

    def reboot(self, worker: Worker, why: Reason) -> None:
        """Restart a worker's container."""
        self._order_on(Reboot, worker, why)

    def update(self, worker: Worker, why: Reason) -> None:
        """Bring a worker to the current revision of its workergroup."""
        self._order_on(Update, worker, why, revision=self.groups[worker.workergroup_id].revision)

    def drain(
        self,
        worker: Worker,
        goal: Goal,
        why: Reason,
        *,
        cause: str = "",
        until_idle: bool = False,
    ) -> None:
        """Send no more requests to a ready worker, then do what `goal` says.

        `cause` is the short form of the reason, repeated by the operation that ends the drain.
        """
        drain = Drain(
            since=self.now,
            deadline=self.now + self.config.drain_seconds_max,
            goal=goal,
            reason=cause or why.text,
            until_idle=until_idle,
        )
        self._order_on(StartDrain, worker, why, drain=drain)

    def cancel_drain(self, worker: Worker, why: Reason) -> None:
        """Take a draining worker back into service."""
        self._order_on(CancelDrain, worker, why)

    def _order_on(self, kind: Callable[..., Operation], worker: Worker, why: Reason, **more: object) -> None:
        numbers = {"perf": self.perfs.worker(worker), "dollars_per_hour": worker.dollars_per_hour}
        given = {"reason": why.text, "numbers": {**numbers, **why.numbers}, **more}
        self.order(kind(launch_id=worker.launch_id, **given))

    # -- waits

    def wait(self, code: str, subject: str, reason: str, until: float | None = None) -> None:
        """Record what the plan waits for."""
        self.waits[Wait(subject=subject, reason=reason, until=until, code=code)] = None
        if until is not None:
            self.wakes.append(until)

    def wait_for_budget(self, why: Reason) -> None:
        """Record that the budget is exhausted."""
        left, budget = max(self.dollars_left, 0.0), self.config.dollars_per_hour_max or 0.0
        self.wait("budget", "endpoint", f"{why}; {price(left)} left of the budget of {price(budget)}")

    @property
    def replan_at(self) -> float | None:
        """The earliest time at which a new plan is due without any event."""
        return min((wake for wake in self.wakes if wake > self.now), default=None)

    # -- what later plans remember

    def record_host_failure(
        self, worker: Worker, failure: str, *, cause: str = "", after_ready: bool = False
    ) -> None:
        """Block the worker's host for a while, unless other hosts fail in the same way.

        `cause` identifies the same failure on other hosts; default: the failure without its numbers and ids.
        """
        self.avoid_host(
            worker,
            f"{worker.kind}: {failure}",
            failed_at=self.now,
            cause=cause or cause_of(failure),
            after_ready=after_ready,
            everywhere=worker.error_everywhere and not after_ready,
        )

    def avoid_host(self, worker: Worker, reason: str, **failure: Any) -> None:
        """Block the worker's host for a while; without further fields of `HostFailure` nothing failed on it."""
        if worker.machine_id:
            until = self.now + self.tuning.host_block_seconds
            group, revision = worker.workergroup_id, worker.revision
            self.failed_hosts.append(
                HostFailure(
                    machine_id=worker.machine_id,
                    until=until,
                    reason=reason,
                    workergroup_id=group,
                    revision=revision,
                    **failure,
                )
            )

    def plan(self, targets: Targets) -> Plan:
        """The finished plan."""
        return Plan(
            operations=tuple(self.operations),
            targets=targets,
            waits=tuple(self.waits),
            replan_at=self.replan_at,
            memory=self.memory,
            failed_hosts=tuple(self.failed_hosts),
        )

    @property
    def all_failed_hosts(self) -> tuple[HostFailure, ...]:
        """The remembered host failures and those of this plan."""
        learned = self.observation.learned
        if self.failed_hosts:
            learned = remember_hosts(learned, self.failed_hosts, self.now)
        return learned.failed_hosts

    def remember(self, **changes: Any) -> None:
        """Change what the next plan is given as `Observation.memory`."""
        self.memory = replace(self.memory, **changes)
