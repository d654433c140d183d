"""A plan in the making: the fleet as the operations so far leave it, so that every step sees what the others decided."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from policy.apply import launched, ordered
from policy.booting import boot_seconds, is_late, overdue_at, start_seconds
from policy.capacity import (
    Have,
    Perfs,
    Rules,
    Want,
    have,
    want,
    workers_min,
)
from policy.experience import Conditions, Experience, Keep, habit_level, keep, lived, need_window
from policy.fleet import Drain, Goal, HostFailure, Worker
from policy.forecast import Forecast, forecast
from policy.observation import Memory, Observation
from policy.plan import Operation, Recruit, StartDrain, Wait
from policy.purse import Purse
from policy.say import price
from policy.silence import with_silent_marked
from policy.tuning import Tuning
from stoker_wire.workergroup import Workergroup


class Draft:
    """What is known, what was decided so far, and the fleet that results."""

    def __init__(self, observation: Observation, tuning: Tuning) -> None:
        self.observation = observation = with_silent_marked(observation, tuning)
        self.tuning = tuning
        self.now = observation.now
        self.config = observation.config
        self.memory = observation.memory or Memory()
        self.groups: dict[int, Workergroup] = {group.id: group for group in observation.workergroups}
        self.rules = Rules.of(observation.config, observation.workergroups)
        self.perfs = Perfs.of(observation.workers, observation.learned)
        self.experience, self.keep = self._live()
        self.forecast: Forecast = forecast(
            observation.load,
            observation.now,
            tuning,
            window_seconds=need_window(self.config.target_queue_time, self.service_seconds, tuning),
            habit=habit_level(self.experience.minutes, self.now, tuning) if self.keep.habit else 0.0,
        )
        self.want: Want = want(observation, self.forecast, self.rules, self.perfs, tuning, self.keep)
        self.workers: dict[str, Worker] = {worker.launch_id: worker for worker in observation.workers}
        self.operations: list[Operation] = []
        self.waits: dict[Wait, None] = {}
        """In the order in which they were said, each once."""
        self.failed_hosts: list[HostFailure] = []
        self.wakes: list[float] = []
        """Moments at which, without any news, something is due."""
        self.outdated = any(
            worker.workergroup_id in self.groups
            and worker.revision < self.groups[worker.workergroup_id].revision
            for worker in observation.workers
        )
        """Whether any worker is of an older revision than its workergroup: most of the time none is."""
        self._touched: set[str] = set()
        self._have: Have | None = None
        """The capacity, until the next order changes it."""
        self._purse: Purse | None = None
        """What the budget leaves, once somebody has asked."""
        self._ids = [each for each in observation.launch_ids if each not in self.workers]

    @property
    def service_seconds(self) -> float:
        """What a request keeps one worker busy for; as long as a minute's window is told apart from chance while unknown."""
        cost, perf = self.observation.load.mean_cost, self.perfs.mean
        if cost <= 0 or perf <= 0:
            return self.tuning.medium_seconds - self.config.target_queue_time
        return cost / perf

    def _live(self) -> tuple[Experience, Keep]:
        learned, tuning = self.observation.learned, self.tuning
        loaded = [self.perfs.worker(worker) for worker in self.observation.workers if worker.loaded_once]
        cold = bool(loaded) and self.keeps_cold
        seconds = start_seconds(learned, tuning) if cold else boot_seconds(learned, tuning)
        on = Conditions(
            unit=self.perfs.mean * self.rules.target_util,
            service_seconds=max(self.service_seconds, 0.05),
            start_seconds=min(seconds, tuning.sustained_seconds),
            billed_seconds=seconds,
            queue_seconds=self.config.target_queue_time,
            machines_suffice=sum(loaded) >= self.memory.hot_target,
        )
        experience = lived(self.memory.experience, self.observation.load, on, tuning)
        return experience, keep(experience, tuning)

    @property
    def keeps_cold(self) -> bool:
        """Whether the endpoint keeps cold workers at all, or coming back is a boot."""
        return (
            self.rules.cold_mult > 1
            or self.config.min_cold_load > 0
            or workers_min(self.observation) > 0
            or any(record.starts > 0 for record in self.observation.learned.kinds)
        )

    def __iter__(self) -> Iterator[Worker]:
        """The workers as they are after what was decided so far."""
        return iter(tuple(self.workers.values()))

    def have(self) -> Have:
        """The capacity after what was decided so far."""
        if self._have is None:
            self._have = have(self.workers.values(), self.perfs, late=self._is_late, overdue=self._is_overdue)
        return self._have

    def _is_late(self, booting: Worker) -> bool:
        return is_late(booting, self.observation.learned, self.now, self.tuning)

    def _is_overdue(self, booting: Worker) -> bool:
        due = overdue_at(booting, self.observation.learned, self.tuning)
        if due > self.now:
            self.wakes.append(due)
        return due <= self.now

    def have_of(self, workers: Iterable[Worker]) -> Have:
        """The capacity of these workers alone."""
        return have(workers, self.perfs)

    def free(self, worker: Worker) -> bool:
        """Whether an operation may be ordered: none is under way or decided, and the last failure has cooled down."""
        if worker.retry_at > self.now:
            self.wakes.append(worker.retry_at)
        return not worker.operation and worker.retry_at <= self.now and worker.launch_id not in self._touched

    def order(self, operation: Operation) -> None:
        """Decide it."""
        self.operations.append(operation)
        self._have = None
        if isinstance(operation, Recruit):
            self._change(None, launched(operation, self.now))
        elif launch_id := getattr(operation, "launch_id", ""):
            self._touched.add(launch_id)
            worker = self.workers[launch_id]
            self._change(worker, ordered(worker, operation, self.now))

    def _change(self, before: Worker | None, after: Worker) -> None:
        self.workers[after.launch_id] = after
        if self._purse is not None:
            self._purse.exchange(before, after)

    def drain(self, worker: Worker, goal: Goal, reason: str, *, seconds: float | None = None) -> None:
        """Begin to empty a ready worker."""
        allowed = self.config.drain_seconds_max if seconds is None else seconds
        drain = Drain(since=self.now, deadline=self.now + allowed, goal=goal, reason=reason)
        self.order(StartDrain(launch_id=worker.launch_id, drain=drain, reason=reason))

    def wait(self, code: str, subject: str, reason: str, until: float | None = None) -> None:
        """Say what is waited for."""
        self.waits[Wait(subject=subject, reason=reason, until=until, code=code)] = None
        if until is not None:
            self.wakes.append(until)

    def wait_for_budget(self, wish: str) -> None:
        """Say what the budget leaves no room for."""
        left, budget = max(self.dollars_left, 0.0), self.config.dollars_per_hour_max or 0.0
        self.wait("budget", "endpoint", f"{wish}: {price(left)} left of the budget of {price(budget)}")

    def blame_host(self, worker: Worker, reason: str) -> None:
        """A launch failed on this machine: do not try it again for a while."""
        self._avoid(worker, reason, failed_at=self.now)

    def avoid_host(self, worker: Worker, reason: str) -> None:
        """Do not try this machine again for a while, although nothing has failed on it."""
        self._avoid(worker, reason, failed_at=0.0)

    def _avoid(self, worker: Worker, reason: str, *, failed_at: float) -> None:
        if not worker.machine_id:
            return
        failure = HostFailure(
            machine_id=worker.machine_id,
            until=self.now + self.tuning.host_failure_seconds,
            reason=reason,
            workergroup_id=worker.workergroup_id,
            failed_at=failed_at,
        )
        self.failed_hosts.append(failure)

    def next_id(self) -> str | None:
        """A fresh launch id, if the caller gave enough."""
        return self._ids.pop(0) if self._ids else None

    @property
    def workers_left(self) -> int:
        """How many more may exist."""
        return self.config.max_workers - len(self.workers)

    @property
    def purse(self) -> Purse | None:
        """What the budget leaves after what was decided so far; None: there is no budget."""
        if self._purse is None and self.config.dollars_per_hour_max is not None:
            self._purse = Purse(self.config.dollars_per_hour_max, self.workers.values())
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
