"""State of a simulated fleet: machines, their cost, and the queue time of requests.

`controller.whatif.replay` advances it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import NamedTuple, Self

from policy.capacity.performance import PerfEstimates
from policy.state.observation import Memory, Observation
from policy.state.worker import Drain, Goal, Worker
from stoker_wire.states import GPU_BILLED, STORAGE_UNBILLED
from stoker_wire.states import WorkerState as S


class WhatIfMachine(NamedTuple):
    """A simulated worker. It is compact, because the state of every plan holds up to a hundred of them."""

    launch_id: str
    group: int
    kind: str
    state: S
    since: float
    launched_at: float
    perf: float
    price: float
    storage: float
    loaded: bool
    drain_since: float | None = None
    drain_goal: Goal | None = None

    @property
    def burn_dollars_per_hour(self) -> float:
        """Cost in its present state, $/h."""
        if self.state in GPU_BILLED:
            return self.price
        return 0.0 if self.state in STORAGE_UNBILLED else self.storage


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIfTotals:
    """Totals of a simulated fleet."""

    seconds: float = 0.0
    dollars: float = 0.0
    hot_seconds: float = 0.0
    """Sum of the ready time of all workers."""
    arrived: float = 0.0
    """Load."""
    waited: float = 0.0
    """Load x seconds."""
    late: float = 0.0
    """Load that waited longer than the live config's target_queue_time."""
    starts: int = 0
    creates: int = 0
    stops: int = 0

    def plus(self, **amounts: float) -> Self:
        """With these amounts added to the fields of their names."""
        return replace(self, **{name: getattr(self, name) + amount for name, amount in amounts.items()})

    def rounded(self) -> Self:
        """With six digits after the point, to limit its size."""
        return replace(self, **{each.name: round(getattr(self, each.name), 6) for each in fields(self)})

    @property
    def dollars_per_hour(self) -> float:
        """Mean."""
        return self.dollars / self.seconds * 3600.0 if self.seconds > 0 else 0.0

    @property
    def hot(self) -> float:
        """Ready workers, mean."""
        return self.hot_seconds / self.seconds if self.seconds > 0 else 0.0

    @property
    def wait_seconds(self) -> float:
        """Expected queue time of a unit of load, mean."""
        return self.waited / self.arrived if self.arrived > 0 else 0.0

    @property
    def late_share(self) -> float:
        """Of the load."""
        return self.late / self.arrived if self.arrived > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIfFleet:
    """A simulated fleet at `clock` (Unix seconds), and its totals so far."""

    clock: float
    machines: tuple[WhatIfMachine, ...] = ()
    memory: Memory = Memory()
    backlog_load: float = 0.0
    replan_at: float | None = None
    level_at_plan: float = 0.0
    tally: WhatIfTotals = WhatIfTotals()
    hot_wanted: float = 0.0
    reason: str = ""
    """Of its last plan."""

    @property
    def hot(self) -> int:
        """Workers that are ready."""
        return sum(machine.state is S.READY for machine in self.machines)

    @property
    def booting(self) -> int:
        """Workers that load or start."""
        return sum(machine.state in (S.LOADING, S.STARTING) for machine in self.machines)

    @property
    def burn_dollars_per_hour(self) -> float:
        """Cost of all machines now, $/h."""
        return sum(machine.burn_dollars_per_hour for machine in self.machines)


def whatif_fleet(seen: Observation) -> WhatIfFleet:
    """A simulated fleet that begins as a copy of the live fleet."""
    return WhatIfFleet(
        clock=seen.now,
        machines=whatif_machines(seen.workers, PerfEstimates.of(seen.workers, seen.learned)),
        memory=seen.memory or Memory(),
        backlog_load=seen.load.backlog_load,
        replan_at=seen.now,
    )


def whatif_machines(workers: Iterable[Worker], perfs: PerfEstimates) -> tuple[WhatIfMachine, ...]:
    """The compact form of these workers."""
    machines = (_machine(worker, perfs.worker(worker)) for worker in workers)
    return tuple(machine for machine in machines if machine is not None)


def simulated_worker(machine: WhatIfMachine, revision: int, drain_seconds_max: float) -> Worker:
    """The full record of a simulated machine."""
    drain, since = None, machine.drain_since
    if since is not None and machine.drain_goal is not None:
        drain = Drain(
            since=since,
            deadline=since + drain_seconds_max,
            goal=machine.drain_goal,
            reason="it is not needed",
        )
    return Worker(
        launch_id=machine.launch_id,
        workergroup_id=machine.group,
        revision=revision,
        kind=machine.kind,
        state=machine.state,
        since=machine.since,
        launched_at=machine.launched_at,
        instance_id=1,
        dollars_per_hour=machine.price,
        storage_dollars_per_hour=machine.storage,
        perf=machine.perf if machine.loaded else 0.0,
        perf_estimate=machine.perf,
        loaded_once=machine.loaded,
        drain=drain,
    )


_STATES = {
    S.PENDING: S.LOADING, S.CREATING: S.LOADING, S.LOADING: S.LOADING, S.MODEL_LOADING: S.LOADING,
    S.CREATED: S.CREATED, S.INACTIVE: S.INACTIVE, S.STOPPING: S.INACTIVE, S.READY: S.READY,
    S.STARTING: S.STARTING, S.REBOOTING: S.STARTING,
    S.UPDATE_READY: S.STARTING, S.UPDATE_REBOOTING: S.STARTING, S.UPDATE_STARTING: S.STARTING,
}  # fmt: skip
"""States of simulated machines. Broken workers and workers under release are left out."""


def _machine(worker: Worker, perf: float) -> WhatIfMachine | None:
    state = _STATES.get(worker.state)
    if state is None:
        return None
    if not worker.loaded_once and state in (S.INACTIVE, S.STARTING):
        state = S.CREATED if state is S.INACTIVE else S.LOADING
    drain = worker.drain
    drains = drain is not None and drain.goal is not Goal.UPDATE and state is S.READY
    return WhatIfMachine(
        launch_id=worker.launch_id,
        group=worker.workergroup_id,
        kind=worker.kind,
        state=state,
        since=round(worker.since, 1),
        launched_at=round(worker.launched_at, 1),
        perf=float(f"{perf:.6g}"),
        price=round(worker.dollars_per_hour, 5),
        storage=round(worker.storage_dollars_per_hour, 6),
        loaded=worker.loaded_once,
        drain_since=round(drain.since, 1) if drains and drain is not None else None,
        drain_goal=drain.goal if drains and drain is not None else None,
    )
