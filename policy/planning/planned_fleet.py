"""PlannedFleet in the making: the fleet as those given so far leave it, so that every step sees what the others decided."""

from collections.abc import Iterator

from policy.capacity.performance import PerfEstimates
from policy.state.liveness import mark_unresponsive
from policy.state.observation import Observation
from policy.state.plan import Operation, Recruit, StartDrain, Wait
from policy.state.plan_effects import apply_operation, launched_worker
from policy.state.worker import Drain, Goal, Worker
from policy.tuning import Tuning
from stoker_wire.workergroup import Workergroup


class PlannedFleet:
    """What is recorded, what was ordered so far, and the fleet that results. Nothing here asks how much is wanted."""

    def __init__(self, observation: Observation, tuning: Tuning) -> None:
        self.observation = observation = mark_unresponsive(observation, tuning)
        self.tuning = tuning
        self.now = observation.now
        self.config = observation.config
        self.groups: dict[int, Workergroup] = {group.id: group for group in observation.workergroups}
        self.perfs = PerfEstimates.of(observation.workers, observation.learned)
        self.workers: dict[str, Worker] = {worker.launch_id: worker for worker in observation.workers}
        self.operations: list[Operation] = []
        self.waits: dict[Wait, None] = {}
        """In the order in which they were said, each once."""
        self.wakes: list[float] = []
        """Moments at which, without any news, something is due."""
        self._touched: set[str] = set()

    def __iter__(self) -> Iterator[Worker]:
        """The workers as they are after what was decided so far."""
        return iter(tuple(self.workers.values()))

    @property
    def is_known(self) -> bool:
        """Whether the engines spoke lately: if not, nothing may be concluded from silence."""
        return self.observation.load.is_known(self.now, self.tuning.metrics_stale_seconds)

    def free(self, worker: Worker) -> bool:
        """Whether an operation may be ordered: none is under way or decided, and the last failure has cooled down."""
        if worker.retry_at > self.now:
            self.wakes.append(worker.retry_at)
        return not worker.operation and worker.retry_at <= self.now and worker.launch_id not in self._touched

    def order(self, operation: Operation) -> None:
        """Decide it."""
        self.operations.append(operation)
        if isinstance(operation, Recruit):
            self._change(None, launched_worker(operation, self.now))
        elif launch_id := getattr(operation, "launch_id", ""):
            self._touched.add(launch_id)
            worker = self.workers[launch_id]
            self._change(worker, apply_operation(worker, operation, self.now))

    def _change(self, before: Worker | None, after: Worker) -> None:
        self.workers[after.launch_id] = after

    def drain(
        self,
        worker: Worker,
        goal: Goal,
        reason: str,
        *,
        seconds: float | None = None,
        until_idle: bool = False,
    ) -> None:
        """Begin to empty a ready worker."""
        allowed = self.config.drain_seconds_max if seconds is None else seconds
        drain = Drain(
            since=self.now,
            deadline=self.now + allowed,
            goal=goal,
            reason=reason,
            until_idle=until_idle,
        )
        self.order(StartDrain(launch_id=worker.launch_id, drain=drain, reason=reason))

    def wait(self, code: str, subject: str, reason: str, until: float | None = None) -> None:
        """Say what is waited for."""
        self.waits[Wait(subject=subject, reason=reason, until=until, code=code)] = None
        if until is not None:
            self.wakes.append(until)

    @property
    def replan_at(self) -> float | None:
        """The earliest moment at which something is due by itself."""
        return min((wake for wake in self.wakes if wake > self.now), default=None)
