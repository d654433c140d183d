"""Simulates a fleet: the real planner under a given config, with the expected result of each operation.

The input is the real endpoint's load. Boots and starts take as long as those of their kind before, every launch
succeeds, and the market always has another machine of each known kind. Requests are a fluid, with the expected wait of
random arrivals added. So two simulated fleets differ only by their configs; neither is the real fleet.
"""

import math
from collections.abc import Iterable
from dataclasses import replace

from controller import plan_due
from controller.whatif.fleet import WhatIfFleet, WhatIfMachine, WhatIfTotals
from controller.whatif.market import assumed_offers
from controller.whatif.past_load import arrived, as_of
from policy.capacity.boot_time import expected_seconds
from policy.capacity.performance import LOAD_EPSILON, PerfEstimates
from policy.load.erlang import expected_wait
from policy.load.history import LoadHistory, rate
from policy.planning.planner import plan
from policy.state.observation import LAUNCH_IDS_PER_PLAN, Observation
from policy.state.plan import Activate, CancelDrain, Destroy, Operation, Plan, Recruit, StartDrain, Stop
from policy.state.worker import Drain, Worker
from policy.tuning import DEFAULT_TUNING, Tuning
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.states import GPU_BILLED
from stoker_wire.states import WorkerState as S

_STEP_SECONDS_MIN = 1.0
_DRAIN_SECONDS_MIN = 2.0
"""Until the engines have seen it and the worker has said that it is empty."""


def advance_fleet(
    shadow: WhatIfFleet, seen: Observation, config: EndpointConfig, tuning: Tuning, until: float
) -> WhatIfFleet:
    """The shadow at `until`, having lived under `config` through the load that the live endpoint saw."""
    gap = until - shadow.clock
    if gap <= 0:
        return shadow
    life = _Life(shadow, seen, config, tuning)
    grid = max(DEFAULT_TUNING.whatif_step_seconds, gap / DEFAULT_TUNING.whatif_steps_max)
    least = max(_STEP_SECONDS_MIN, gap / (2 * DEFAULT_TUNING.whatif_steps_max))
    while life.clock < until:
        life.step(min(until, max(life.clock + least, min(life.clock + grid, life.next_moment()))))
    return life.shadow()


class _Life:
    """A shadow on the move."""

    def __init__(
        self, shadow: WhatIfFleet, seen: Observation, config: EndpointConfig, tuning: Tuning
    ) -> None:
        self._before = shadow
        self._seen = seen
        self._config = config
        self._tuning = tuning
        self._limit = seen.config.target_queue_time
        self._perfs = PerfEstimates.of(seen.workers, seen.learned)
        self._cost = seen.load.mean_cost or self._perfs.mean or 1.0
        self._revisions = {group.id: group.revision for group in seen.workergroups}
        self.clock = shadow.clock
        self._machines = {each.launch_id: each for each in shadow.machines}
        self._memory = shadow.memory
        self._backlog = shadow.backlog_load
        self._replan_at = shadow.replan_at
        self._level = shadow.level_at_plan
        self._launches = shadow.launches
        self._hot_wanted, self._reason = shadow.hot_wanted, shadow.reason
        tally = shadow.tally
        self._seconds, self._dollars, self._hot_seconds = tally.seconds, tally.dollars, tally.hot_seconds
        self._arrived, self._waited, self._late = tally.arrived, tally.waited, tally.late
        self._starts, self._creates, self._stops = tally.starts, tally.creates, tally.stops

    def shadow(self) -> WhatIfFleet:
        return replace(
            self._before,
            clock=self.clock,
            machines=tuple(self._machines.values()),
            memory=self._memory,
            backlog_load=round(self._backlog, 3),
            replan_at=self._replan_at,
            level_at_plan=self._level,
            launches=self._launches,
            hot_wanted=self._hot_wanted,
            reason=self._reason[:300],
            tally=WhatIfTotals(
                seconds=round(self._seconds, 3),
                dollars=round(self._dollars, 6),
                hot_seconds=round(self._hot_seconds, 3),
                arrived=round(self._arrived, 3),
                waited=round(self._waited, 3),
                late=round(self._late, 3),
                starts=self._starts,
                creates=self._creates,
                stops=self._stops,
            ),
        )

    def next_moment(self) -> float:
        """When something is due by itself."""
        due = [self._ready_at(each) for each in self._machines.values() if _boots(each)]
        due += [self._empty_at(each) for each in self._machines.values() if each.drain_since is not None]
        due += [self._replan_at] if self._replan_at is not None else []
        return min((at for at in due if at > self.clock), default=math.inf)

    def step(self, until: float) -> None:
        """Let time pass, then plan if anything calls for it."""
        queued = self._backlog > LOAD_EPSILON
        self._pass(until)
        came = [self._has_come(each) for each in list(self._machines.values()) if _boots(each)]
        emptied = any(
            each.drain_since is not None and self.clock >= self._empty_at(each)
            for each in self._machines.values()
        )
        load = self._load()
        level = plan_due.level(load) or 0.0
        moved = plan_due.level_moved(level, self._level, self._ready())
        due = self._replan_at is not None and self.clock >= self._replan_at
        if (
            any(came)
            or emptied
            or moved
            or due
            or queued != (self._backlog > LOAD_EPSILON)
            or self._pressed()
        ):
            self._level = level
            self._carry_out(self._plan(load))

    # time

    def _pass(self, until: float) -> None:
        seconds = until - self.clock
        work = arrived(self._seen.load, self.clock, until)
        capacity = self._ready()
        before = self._backlog
        after = max(0.0, before + work - capacity * seconds)
        self._arrived += work
        self._waited += (before + after) / 2.0 * seconds
        self._dollars += (
            sum(each.burn_dollars_per_hour for each in self._machines.values()) * seconds / 3600.0
        )
        hot = [each for each in self._machines.values() if each.state is S.READY]
        self._hot_seconds += len(hot) * seconds
        self._seconds += seconds
        self.clock, self._backlog = until, after if after > LOAD_EPSILON else 0.0
        if self._backlog > 0:
            self._late += work * (self._backlog > self._work_within(self._limit))
        elif work > 0:
            by_chance = expected_wait(
                work / seconds,
                capacity,
                perf=capacity / max(sum(each.drain_since is None for each in hot), 1),
                cost=self._cost,
                spread=self._tuning.cost_spread,
                limit=self._limit,
            )
            self._waited += work * by_chance.mean_seconds
            self._late += work * by_chance.late_share

    def _ready(self) -> float:
        """Load/s of those that take requests."""
        return sum(
            each.perf
            for each in self._machines.values()
            if each.state is S.READY and each.drain_since is None
        )

    def _work_within(self, seconds: float) -> float:
        """Load that ready and booting workers can serve in the next `seconds`."""
        horizon = self.clock + seconds
        booting = (each for each in self._machines.values() if _boots(each))
        return self._ready() * seconds + sum(
            each.perf * max(0.0, horizon - max(self._ready_at(each), self.clock)) for each in booting
        )

    def _pressed(self) -> bool:
        return self._backlog > self._ready() * self._config.target_queue_time

    def _ready_at(self, machine: WhatIfMachine) -> float:
        worker = self._worker(machine, busy=False)
        asked = machine.since if machine.loaded else machine.launched_at
        return asked + expected_seconds(worker, self._seen.learned, self._tuning)

    def _empty_at(self, machine: WhatIfMachine) -> float:
        since = machine.drain_since if machine.drain_since is not None else self.clock
        return since + max(_DRAIN_SECONDS_MIN, self._cost / machine.perf if machine.perf > 0 else 0.0)

    def _has_come(self, machine: WhatIfMachine) -> bool:
        if self._ready_at(machine) > self.clock:
            return False
        perf = machine.perf or self._perfs.worker(self._worker(machine, busy=False))
        self._machines[machine.launch_id] = machine._replace(
            state=S.READY, since=round(self.clock, 1), loaded=True, perf=perf
        )
        return True

    # decisions

    def _plan(self, load: LoadHistory) -> Plan:
        hot = [each for each in self._machines.values() if each.state is S.READY and each.drain_since is None]
        capacity = sum(each.perf for each in hot)
        level = rate(load, DEFAULT_TUNING.whatif_step_seconds * 3) or 0.0
        share = 1.0 if self._backlog > 0 else min(1.0, level / capacity) if capacity > 0 else 0.0
        busy = {each.launch_id for each in hot[: math.ceil(share * len(hot) - 1e-9)]}
        workers = tuple(self._worker(each, busy=each.launch_id in busy) for each in self._machines.values())
        seen = replace(
            self._seen,
            now=self.clock,
            config=self._config,
            workers=workers,
            load=load,
            offers=assumed_offers(self._seen, self.clock),
            listed_at=self.clock,
            listing_in_progress=True,
            searching=(),
            launch_ids=tuple(f"~{self._launches + number:011d}" for number in range(LAUNCH_IDS_PER_PLAN)),
            memory=self._memory,
        )
        return plan(seen, self._tuning)

    def _load(self) -> LoadHistory:
        """What its engines would say: the arrivals up to now, and its own queue."""
        load = as_of(self._seen.load, self.clock)
        return replace(
            load,
            backlog_load=self._backlog,
            backlog_requests=math.ceil(self._backlog / self._cost),
        )

    def _worker(self, machine: WhatIfMachine, *, busy: bool) -> Worker:
        drain = None
        if machine.drain_since is not None and machine.drain_goal is not None:
            empty = self.clock >= self._empty_at(machine)
            drain = Drain(
                since=machine.drain_since,
                deadline=machine.drain_since + self._config.drain_seconds_max,
                goal=machine.drain_goal,
                reason="it is not needed",
                seen_at=self.clock if empty else None,
            )
            busy = not empty
        return Worker(
            launch_id=machine.launch_id,
            workergroup_id=machine.group,
            revision=self._revisions.get(machine.group, 1),
            kind=machine.kind,
            state=machine.state,
            since=machine.since,
            launched_at=machine.launched_at,
            instance_id=1,
            dollars_per_hour=machine.price,
            storage_dollars_per_hour=machine.storage,
            perf=machine.perf if machine.loaded else 0.0,
            perf_estimate=machine.perf,
            load=self._cost if busy else 0.0,
            in_flight=int(busy),
            reported_at=self.clock if machine.state is S.READY else None,
            loaded_once=machine.loaded,
            drain=drain,
            market_status="running" if machine.state in GPU_BILLED else "",
        )

    def _carry_out(self, made: Plan) -> None:
        for operation in made.operations:
            self._carry_out_one(operation)
        self._memory = made.memory
        self._replan_at = made.replan_at
        self._hot_wanted, self._reason = made.targets.hot_wanted, made.targets.reason

    def _carry_out_one(self, operation: Operation) -> None:
        now = round(self.clock, 1)
        if isinstance(operation, Recruit):
            self._recruit(operation, now)
            return
        machine = self._machines.get(getattr(operation, "launch_id", ""))
        if machine is None:
            return
        match operation:
            case Activate():
                self._starts += 1
                state = S.STARTING if machine.loaded else S.LOADING
                launched = machine.launched_at if machine.loaded else now
                machine = machine._replace(state=state, since=now, launched_at=launched)
            case StartDrain():
                machine = machine._replace(drain_since=now, drain_goal=operation.drain.goal)
            case CancelDrain():
                machine = machine._replace(drain_since=None, drain_goal=None)
            case Stop():
                self._stops += 1
                state = S.INACTIVE if machine.loaded else S.CREATED
                machine = machine._replace(state=state, since=now, drain_since=None, drain_goal=None)
            case Destroy():
                del self._machines[machine.launch_id]
                return
            case _:
                return
        self._machines[machine.launch_id] = machine

    def _recruit(self, operation: Recruit, now: float) -> None:
        self._creates += 1
        self._launches += 1
        offer = operation.offer
        self._machines[operation.launch_id] = WhatIfMachine(
            launch_id=operation.launch_id,
            group=operation.workergroup_id,
            kind=offer.kind,
            state=S.LOADING,
            since=now,
            launched_at=now,
            perf=float(f"{operation.perf_estimate:.6g}"),
            price=round(offer.dph_total, 5),
            storage=round(_storage(self._seen.workers, offer.kind, offer.dph_total), 6),
            loaded=False,
        )


def _boots(machine: WhatIfMachine) -> bool:
    return machine.state in (S.LOADING, S.STARTING)


def _storage(workers: Iterable[Worker], kind: str, price: float) -> float:
    """$/h of a disk: as those of the kind cost, else a usual share of the price."""
    known = [each for each in workers if each.kind == kind and each.storage_dollars_per_hour > 0]
    if not known:
        return price * DEFAULT_TUNING.whatif_storage_share
    return sum(each.storage_dollars_per_hour for each in known) / len(known)
