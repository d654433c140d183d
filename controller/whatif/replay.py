"""Simulates a fleet: hosts the endpoint controller under a given config, with the expected result of each effect.

The input is the real endpoint's load. Boots and starts take as long as those of their kind before, every launch
succeeds, and the market always has another machine of each known kind. Requests are a fluid, with the expected wait of
random arrivals added. So two simulated fleets differ only by their configs; neither is the real fleet.
"""

import math
from collections.abc import Iterable
from dataclasses import replace

from controller import plan_due
from controller.controller import EndpointController
from controller.effects import ChangeInstance, CreatedInstance, CreateInstance, Done, Effect
from controller.whatif.advice import Advice
from controller.whatif.fleet import WhatIfFleet, simulated_worker, whatif_machines
from controller.whatif.market import assumed_offers
from controller.whatif.past_load import arrived, as_of
from policy.capacity.boot_time import ready_at
from policy.capacity.performance import LOAD_EPSILON, PerfEstimates
from policy.capacity.supply import takes_requests
from policy.load.erlang import expected_wait
from policy.load.history import rate
from policy.state.lifecycle import advance, is_booting
from policy.state.observation import LAUNCH_IDS_PER_PLAN, Observation
from policy.state.plan import Targets
from policy.state.worker import Drain, Worker
from policy.state.worker_events import fold_drain_seen
from policy.tuning import DEFAULT_TUNING, Tuning
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.states import GPU_BILLED
from stoker_wire.states import WorkerState as S

_STEP_SECONDS_MIN = 1.0
_DRAIN_SECONDS_MIN = 2.0
"""Until the engines have confirmed the drain and the worker has reported that it is empty."""


def advance_advice(advice: Advice, seen: Observation, tuning: Tuning = DEFAULT_TUNING) -> Advice:
    """The advice after the load of this observation; the same object while there is too little of it.

    Raises:
        pydantic.ValidationError: the live config has changed, and the patch is no longer valid for it.
    """
    known = seen.load.known_until
    until = min(seen.now, known if known is not None else seen.now) - tuning.whatif_lag_seconds
    if until - advice.live.clock < tuning.whatif_advance_seconds:
        return advice
    return replace(
        advice,
        live=advance_fleet(advice.live, seen, seen.config, tuning, until),
        advised=advance_fleet(advice.advised, seen, seen.config.patched(advice.patch), tuning, until),
    )


def advance_fleet(
    fleet: WhatIfFleet, seen: Observation, config: EndpointConfig, tuning: Tuning, until: float
) -> WhatIfFleet:
    """The fleet at `until`, after the load that the live endpoint saw, under `config`."""
    gap = until - fleet.clock
    if gap <= 0:
        return fleet
    host = _Host(_controller(fleet, seen, config, tuning), fleet, seen, tuning)
    grid = max(DEFAULT_TUNING.whatif_step_seconds, gap / DEFAULT_TUNING.whatif_steps_max)
    least = max(_STEP_SECONDS_MIN, gap / (2 * DEFAULT_TUNING.whatif_steps_max))
    while host.clock < until:
        host.step(min(until, max(host.clock + least, min(host.clock + grid, host.next_event_at()))))
    return host.result()


def _controller(
    fleet: WhatIfFleet, seen: Observation, config: EndpointConfig, tuning: Tuning
) -> EndpointController:
    """A controller with the fleet's state, as its own workflow would carry it over."""
    controller = EndpointController.simulated(config, seen.workergroups, tuning, "")
    record = controller.state.record
    revisions = {group.id: group.revision for group in seen.workergroups}
    for machine in fleet.machines:
        worker = simulated_worker(machine, revisions.get(machine.group, 1), config.drain_seconds_max)
        record.workers[machine.launch_id] = worker
    record.learned, record.memory = seen.learned, fleet.memory
    record.replan_at, record.load_at_plan = fleet.replan_at, fleet.level_at_plan
    record.listening_since = seen.listening_since
    record.targets = Targets(hot_wanted=fleet.hot_wanted, reason=fleet.reason)
    controller.due = ""
    return controller


class _Host:
    """Moves the clock, serves the load, and reports to the controller what an engine and a marketplace would."""

    def __init__(
        self, controller: EndpointController, fleet: WhatIfFleet, seen: Observation, tuning: Tuning
    ) -> None:
        self.clock = fleet.clock
        self._controller = controller
        self._fleet = fleet
        self._seen = seen
        self._tuning = tuning
        self._perfs = PerfEstimates.of(seen.workers, seen.learned)
        self._cost = seen.load.mean_cost or self._perfs.mean or 1.0
        self._backlog = fleet.backlog_load
        self._totals = fleet.tally

    @property
    def _workers(self) -> dict[str, Worker]:
        return self._controller.state.record.workers

    def result(self) -> WhatIfFleet:
        record = self._controller.state.record
        return replace(
            self._fleet,
            clock=self.clock,
            machines=whatif_machines(self._workers.values(), self._perfs),
            memory=record.memory,
            backlog_load=round(self._backlog, 3),
            replan_at=record.replan_at,
            level_at_plan=record.load_at_plan,
            hot_wanted=record.targets.hot_wanted,
            reason=record.targets.reason[:300],
            tally=self._totals.rounded(),
        )

    def next_event_at(self) -> float:
        """When a worker is ready, a drain ends, or a plan is due."""
        due = [self._ready_at(each) for each in self._workers.values() if is_booting(each)]
        due += [self._empty_at(each.drain) for each in self._workers.values() if each.drain is not None]
        replan_at = self._controller.state.record.replan_at
        due += [] if replan_at is None else [replan_at]
        return min((at for at in due if at > self.clock), default=math.inf)

    def step(self, until: float) -> None:
        """Let time pass, then plan if a plan is due."""
        controller, record, queued = self._controller, self._controller.state.record, self._backlog > 0
        self._serve(until)
        changed = self._note_ready() + self._note_drained()
        load = as_of(self._seen.load, self.clock)
        requests = math.ceil(self._backlog / self._cost)
        record.load = replace(load, backlog_load=self._backlog, backlog_requests=requests)
        if record.replan_at is not None and self.clock >= record.replan_at:
            controller.on_timer(record.replan_at)
        if (
            controller.due
            or changed
            or queued != (self._backlog > 0)
            or self._backlog > self._ready() * record.config.target_queue_time
            or plan_due.level_reason(record.load, record.load_at_plan, self._ready())
        ):
            self._plan()

    # load

    def _serve(self, until: float) -> None:
        seconds, hot, limit = until - self.clock, self._hot(), self._seen.config.target_queue_time
        work, capacity, before = arrived(self._seen.load, self.clock, until), self._ready(), self._backlog
        left = max(0.0, before + work - capacity * seconds)
        waited, late = (before + left) / 2.0 * seconds, 0.0
        self.clock, self._backlog = until, left if left > LOAD_EPSILON else 0.0
        if self._backlog > 0:
            late = work * (self._backlog > self._work_within(limit))
        elif work > 0:
            by_chance = expected_wait(
                work / seconds,
                capacity,
                perf=capacity / max(sum(each.drain is None for each in hot), 1),
                cost=self._cost,
                spread=self._tuning.cost_spread,
                limit=limit,
            )
            waited += work * by_chance.mean_seconds
            late = work * by_chance.late_share
        burn = sum(each.burn_dollars_per_hour for each in self._workers.values())
        self._totals = self._totals.plus(
            seconds=seconds,
            dollars=burn * seconds / 3600.0,
            hot_seconds=len(hot) * seconds,
            arrived=work,
            waited=waited,
            late=late,
        )

    def _hot(self) -> list[Worker]:
        return [each for each in self._workers.values() if each.state is S.READY]

    def _ready(self) -> float:
        """Load/s of those that take requests."""
        return sum(each.perf for each in self._hot() if takes_requests(each))

    def _work_within(self, seconds: float) -> float:
        """Load that ready and booting workers can serve in the next `seconds`."""
        horizon = self.clock + seconds
        return self._ready() * seconds + sum(
            self._perfs.worker(each) * max(0.0, horizon - max(self._ready_at(each), self.clock))
            for each in self._workers.values()
            if is_booting(each)
        )

    # what engines report

    def _ready_at(self, worker: Worker) -> float:
        return ready_at(worker, self._seen.learned, self._tuning)

    def _note_ready(self) -> int:
        came = [
            each for each in self._workers.values() if is_booting(each) and self._ready_at(each) <= self.clock
        ]
        for worker in came:
            perf = worker.perf or worker.perf_estimate or self._perfs.worker(worker)
            ready = advance(worker, S.READY, self.clock, perf=perf, loaded_once=True)
            self._workers[worker.launch_id] = ready
        return len(came)

    def _empty_at(self, drain: Drain) -> float:
        perf = self._perfs.mean
        return drain.since + max(_DRAIN_SECONDS_MIN, self._cost / perf if perf > 0 else 0.0)

    def _note_drained(self) -> int:
        drained = [
            each
            for each in self._workers.values()
            if each.drain is not None
            and each.drain.seen_at is None
            and self._empty_at(each.drain) <= self.clock
        ]
        for worker in drained:
            self._workers[worker.launch_id] = fold_drain_seen(worker, at=self.clock)
        return len(drained)

    def _note_reports(self) -> None:
        """Every ready worker has reported just now; as many hold a request as the arrivals keep busy."""
        hot = [each for each in self._hot() if takes_requests(each)]
        capacity = self._ready()
        level = rate(self._controller.state.record.load, DEFAULT_TUNING.whatif_step_seconds * 3) or 0.0
        share = 1.0 if self._backlog > 0 else min(1.0, level / capacity) if capacity > 0 else 0.0
        busy = {each.launch_id for each in hot[: math.ceil(share * len(hot) - 1e-9)]}
        for launch_id, worker in self._workers.items():
            holds = launch_id in busy or (worker.drain is not None and worker.drain.seen_at is None)
            self._workers[launch_id] = worker.replace(
                load=self._cost if holds else 0.0,
                in_flight=int(holds),
                reported_at=self.clock if worker.state is S.READY else None,
                market_status="running" if worker.state in GPU_BILLED else "",
            )

    # plans

    def _plan(self) -> None:
        controller, record = self._controller, self._controller.state.record
        self._note_reports()
        record.listed_at = record.listed_whole_at = self.clock
        offers = assumed_offers(self._seen, self.clock)
        controller.state.offers.update({found.workergroup_id: found for found in offers})
        ids = tuple(f"~{self._totals.creates + number:011d}" for number in range(LAUNCH_IDS_PER_PLAN))
        _, effects = controller.plan_at_once(ids, self.clock)
        for effect in effects:
            self._carry_out(effect)
        controller.due = ""

    def _carry_out(self, effect: Effect) -> None:
        """At once. Only boots, starts and drains take time."""
        if isinstance(effect, CreateInstance):
            self._totals = self._totals.plus(creates=1)
            offer = effect.offer
            storage = _storage(self._seen.workers, offer.kind, offer.dph_total)
            created = CreatedInstance(instance_id=1, storage_dollars_per_hour=storage)
            self._controller.on_result(effect, created, self.clock)
            self._workers[effect.key] = advance(self._workers[effect.key], S.LOADING, self.clock)
        elif isinstance(effect, ChangeInstance):
            operation = effect.worker.operation
            self._totals = self._totals.plus(starts=operation == "start", stops=operation == "stop")
            self._controller.on_result(effect, Done(confirmed=True), self.clock)


def _storage(workers: Iterable[Worker], kind: str, price: float) -> float:
    """$/h of a disk: as those of the kind cost, else a usual share of the price."""
    known = [each for each in workers if each.kind == kind and each.storage_dollars_per_hour > 0]
    if not known:
        return price * DEFAULT_TUNING.whatif_storage_share
    return sum(each.storage_dollars_per_hour for each in known) / len(known)
