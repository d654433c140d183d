"""A plan in the making: orders, with what is wanted and what the caps leave room for."""

from collections.abc import Iterable
from dataclasses import replace

from policy.capacity.boot_time import boot_seconds, is_slower_than_start, overdue_at, start_seconds
from policy.capacity.budget import BudgetTracker
from policy.capacity.demand import Demand, ScalingParameters, estimate_demand
from policy.capacity.limits import workers_max, workers_min
from policy.capacity.supply import Supply, measure_supply
from policy.keepalive.candidates import Retention
from policy.keepalive.evaluation import (
    EvaluationParameters,
    KeepaliveState,
    chosen_retention,
    demand_window_seconds,
    evaluate,
)
from policy.load.forecast import Forecast, forecast
from policy.load.seasonality import seasonal_level
from policy.planning.planned_fleet import PlannedFleet
from policy.state.host_failures import cause_of
from policy.state.machine_stats import remember_hosts
from policy.state.observation import Memory, Observation
from policy.state.worker import HostFailure, Worker
from policy.tuning import Tuning
from policy.wording import price


class PlanBuilder(PlannedFleet):
    """PlannedFleet for an endpoint that is scaled: what is known, what is wanted, and what the caps leave room for."""

    def __init__(self, observation: Observation, tuning: Tuning) -> None:
        super().__init__(observation, tuning)
        observation = self.observation
        self.memory = observation.memory or Memory()
        self.rules = ScalingParameters.of(observation.config, observation.workergroups)
        self.seasonal_lead_seconds = self._seasonal_lead_seconds()
        self.keepalive, self.keep = self._live()
        self.forecast: Forecast = forecast(
            observation.load,
            observation.now,
            tuning,
            window_seconds=demand_window_seconds(self.config.target_queue_time, self.service_seconds, tuning),
            seasonal_load=seasonal_level(
                self.keepalive.minute_peaks, self.now, self.seasonal_lead_seconds, tuning
            )
            if self.keep.seasonal
            else 0.0,
        )
        self.want: Demand = estimate_demand(
            observation, self.forecast, self.rules, self.perfs, tuning, self.keep
        )
        self.failed_hosts: list[HostFailure] = []
        self.outdated = any(
            worker.workergroup_id in self.groups
            and worker.revision < self.groups[worker.workergroup_id].revision
            for worker in observation.workers
        )
        """Whether any worker is of an older revision than its workergroup: most of the time none is."""
        self._have: Supply | None = None
        """The capacity, until the next order changes it."""
        self._purse: BudgetTracker | None = None
        """What the budget leaves, once somebody has asked."""
        self._ids = [each for each in observation.launch_ids if each not in self.workers]

    @property
    def is_known(self) -> bool:
        """Whether the load is: the engines spoke lately, and of long enough."""
        return self.forecast.known

    @property
    def service_seconds(self) -> float:
        """What a request keeps one worker busy for; as long as a minute's window is told apart from chance while unknown."""
        cost, perf = self.observation.load.mean_cost, self.perfs.mean
        if cost <= 0 or perf <= 0:
            return self.tuning.medium_window_seconds - self.config.target_queue_time
        return cost / perf

    def _live(self) -> tuple[KeepaliveState, Retention]:
        learned, tuning = self.observation.learned, self.tuning
        loaded = any(worker.loaded_once for worker in self.observation.workers)
        seconds = (
            start_seconds(learned, tuning) if loaded and self.keeps_cold else boot_seconds(learned, tuning)
        )
        on = EvaluationParameters(
            worker_load_per_second=self.perfs.mean * self.rules.target_util,
            service_seconds=max(self.service_seconds, 0.05),
            start_seconds=min(seconds, tuning.sustained_window_seconds),
            lead_seconds=self.seasonal_lead_seconds,
            billed_seconds=seconds,
            target_queue_seconds=self.config.target_queue_time,
        )
        experience = evaluate(self.memory.keepalive, self.observation.load, on, tuning)
        return experience, chosen_retention(experience, tuning)

    def _seasonal_lead_seconds(self) -> float:
        """Twice as long as a boot takes, where nothing is kept cold: nine of ten have come by then, as of starts in 45 s."""
        tuning = self.tuning
        if self.keeps_cold:
            return tuning.seasonal_lead_seconds
        boot = tuning.overdue_factor * boot_seconds(self.observation.learned, tuning)
        return max(tuning.seasonal_lead_seconds, min(boot, tuning.seasonal_lead_seconds_max))

    @property
    def keeps_cold(self) -> bool:
        """Whether the endpoint keeps cold workers at all, or coming back is a boot."""
        return (
            self.rules.cold_mult > 1
            or self.config.min_cold_load > 0
            or workers_min(self.observation) > 0
            or any(record.starts > 0 for record in self.observation.learned.kinds)
        )

    def have(self) -> Supply:
        """The capacity after what was decided so far."""
        if self._have is None:
            self._have = measure_supply(
                self.workers.values(), self.perfs, is_overtaken=self._is_late, is_overdue=self._is_overdue
            )
        return self._have

    def _is_late(self, booting: Worker) -> bool:
        return is_slower_than_start(booting, self.observation.learned, self.now, self.tuning)

    def _is_overdue(self, booting: Worker) -> bool:
        due = overdue_at(booting, self.observation.learned, self.tuning)
        if due > self.now:
            self.wakes.append(due)
        return due <= self.now

    def have_of(self, workers: Iterable[Worker]) -> Supply:
        """The capacity of these workers alone."""
        return measure_supply(workers, self.perfs)

    def _change(self, before: Worker | None, after: Worker) -> None:
        super()._change(before, after)
        self._have = None
        if self._purse is not None:
            self._purse.exchange(before, after)

    def wait_for_budget(self, wish: str) -> None:
        """Say what the budget leaves no room for."""
        left, budget = max(self.dollars_left, 0.0), self.config.dollars_per_hour_max or 0.0
        self.wait("budget", "endpoint", f"{wish}: {price(left)} left of the budget of {price(budget)}")

    def record_host_failure(
        self, worker: Worker, failure: str, *, cause: str = "", after_ready: bool = False
    ) -> None:
        """A launch failed on this machine: do not try it again for a while, unless the failure is not the host's.

        `cause` is what the failure has in common with the same one on another host; without it, the failure itself.
        """
        said = f"{worker.kind}{failure}"
        shared = cause or cause_of(failure.removeprefix(": "))
        self._avoid(worker, said, failed_at=self.now, cause=shared, after_ready=after_ready)

    def avoid_host(self, worker: Worker, reason: str) -> None:
        """Do not try this machine again for a while, although nothing has failed on it."""
        self._avoid(worker, reason, failed_at=0.0)

    def _avoid(
        self, worker: Worker, reason: str, *, failed_at: float, cause: str = "", after_ready: bool = False
    ) -> None:
        if not worker.machine_id:
            return
        failure = HostFailure(
            machine_id=worker.machine_id,
            until=self.now + self.tuning.host_block_seconds,
            reason=reason,
            workergroup_id=worker.workergroup_id,
            failed_at=failed_at,
            revision=worker.revision,
            cause=cause,
            after_ready=after_ready,
        )
        self.failed_hosts.append(failure)

    @property
    def all_failed_hosts(self) -> tuple[HostFailure, ...]:
        """Those that are remembered, and those that this plan adds."""
        learned = self.observation.learned
        if self.failed_hosts:
            learned = remember_hosts(learned, self.failed_hosts, self.now)
        return learned.failed_hosts

    def next_id(self) -> str | None:
        """A fresh launch id, if the caller gave enough."""
        return self._ids.pop(0) if self._ids else None

    @property
    def workers_left(self) -> int:
        """How many more may exist."""
        return workers_max(self.config) - len(self.workers)

    @property
    def purse(self) -> BudgetTracker | None:
        """What the budget leaves after what was decided so far; None: there is no budget."""
        if self._purse is None and self.config.dollars_per_hour_max is not None:
            self._purse = BudgetTracker(self.config.dollars_per_hour_max, self.workers.values())
        return self._purse

    @property
    def dollars_left(self) -> float:
        """How many more $/h may be committed."""
        return float("inf") if self.purse is None else self.purse.left

    def affords(self, dollars_per_hour: float, instead_of: float = 0.0) -> bool:
        """Whether the budget has room for so much more, or for so much instead of what a worker takes now."""
        return self.purse is None or self.purse.affords(dollars_per_hour, instead_of)

    def with_memory(self, **changes: object) -> None:
        """Ask to be reminded."""
        self.memory = replace(self.memory, **changes)  # type: ignore[arg-type]  # the fields are Memory's own
