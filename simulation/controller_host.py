"""Hosts the production controller in the simulated world, in place of the workflow.

Batches, results and listings of the simulated engine and marketplace become the controller's events; its effects become
calls of the simulated marketplace.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from controller import effects
from controller.controller import TIMER_LATE_SECONDS, TIMER_SECONDS_MIN, EndpointController
from policy.state.observation import LAUNCH_IDS_PER_PLAN
from policy.state.plan import CancelDrain, Plan, PollInstances, Search, StartDrain
from policy.tuning import DEFAULT_TUNING, Tuning
from simulation.machine import Machine, Stage
from simulation.settings import EPOCH
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.market import Instance
from stoker_wire.messages import MetricsBatch
from stoker_wire.workergroup import Workergroup

if TYPE_CHECKING:
    from simulation.world import World

LABEL_PREFIX = "stoker:simulated:"
DECISIONS_MAX = 2000

STATUS: dict[Stage, str] = {
    Stage.CREATING: "",
    Stage.LOADING: "loading",
    Stage.DUD: "loading",
    Stage.STARTING: "running",
    Stage.STUCK: "scheduling",
    Stage.READY: "running",
    Stage.STOPPING: "running",
    Stage.STOPPED: "stopped",
}


class SimulatedController:
    """Hosts an `EndpointController`. `decisions` keeps what was ordered and why, bounded."""

    name = "stoker"

    def __init__(self, config: EndpointConfig, *, tuning: Tuning = DEFAULT_TUNING) -> None:
        self.plans = 0
        self.decisions: list[tuple[float, str, str]] = []
        group = Workergroup(id=1, template_hash="simulated")
        self._controller = EndpointController.simulated(config, (group,), tuning, LABEL_PREFIX)
        self._machines: dict[str, Machine] = {}
        self._ids = _launch_ids(0)
        self._timer = 0
        self._planning = False
        self._world: World

    def begin(self, world: "World") -> None:
        """The endpoint starts."""
        self._world = world
        self._plan_soon()

    # events

    def on_metrics(self, batches: Sequence[MetricsBatch]) -> None:
        """A signal with metrics."""
        self._controller.on_metrics(batches, EPOCH + self._world.now)
        if self._controller.due:
            self._plan()

    def _on_timer(self, timer: int) -> None:
        if timer == self._timer:
            self._controller.on_timer(EPOCH + self._world.now)
            self._plan()

    def _on_result(self, effect: effects.Effect, result: effects.Result) -> None:
        self._controller.on_result(effect, result, EPOCH + self._world.now)
        if self._controller.due:
            self._plan_soon()

    # plans

    def _plan_soon(self) -> None:
        """Several results at one moment make one plan."""
        if not self._planning:
            self._planning = True
            self._world.after(0.0, self._plan_now)

    def _plan_now(self, _: Any) -> None:
        self._planning = False
        self._plan()

    def _plan(self) -> None:
        world = self._world
        made, begun = self._controller.plan_at_once(self._ids, EPOCH + world.now)
        self.plans += 1
        self._note(made)
        for effect in begun:
            self._carry_out(effect)
        self._timer += 1
        due = self._controller.state.record.replan_at
        if due is not None:
            at = max(due - EPOCH + TIMER_LATE_SECONDS, world.now + TIMER_SECONDS_MIN)
            world.at(at, self._on_timer, self._timer)

    def _note(self, made: Plan) -> None:
        """Keeps what was ordered, and shows the engine which workers drain."""
        for operation in made.operations:
            if isinstance(operation, PollInstances | Search):
                continue
            if len(self.decisions) < DECISIONS_MAX:
                self.decisions.append((self._world.now, operation.op, operation.reason))
            if isinstance(operation, StartDrain | CancelDrain) and operation.launch_id in self._machines:
                machine = self._machines[operation.launch_id]
                self._world.dispatcher.drain(machine, isinstance(operation, StartDrain))

    # effects

    def _carry_out(self, effect: effects.Effect) -> None:
        world = self._world
        match effect:
            case effects.SearchOffers():
                world.search(lambda offers: self._on_result(effect, effects.FoundOffers(offers=offers)))
            case effects.ListInstances():
                world.after(world.settings.operation_seconds, self._list, effect)
            case effects.CreateInstance():
                self._ids = _launch_ids(int(effect.key, 16) + 1)
                world.create(effect.key, effect.offer.id, lambda machine: self._created(effect, machine))
            case effects.ChangeInstance():
                self._change(effect)

    def _created(self, effect: effects.CreateInstance, machine: Machine | None) -> None:
        if machine is None:
            self._on_result(effect, effects.Failed(kind="OfferGone", text=""))
            return
        self._machines[effect.key] = machine
        created = effects.CreatedInstance(
            instance_id=machine.id, storage_dollars_per_hour=machine.storage_price
        )
        self._on_result(effect, created)

    def _change(self, effect: effects.ChangeInstance) -> None:
        world, machine = self._world, self._machines.get(effect.key)
        if machine is None:
            world.after(0.0, lambda _: self._changed(effect, False))
        else:
            world.change(effect.worker.operation, machine, lambda ok: self._changed(effect, ok))

    def _changed(self, effect: effects.ChangeInstance, ok: bool) -> None:
        # The world answers when the machine has reached the state, not when it accepts the call.
        self._on_result(
            effect, effects.Done(confirmed=True) if ok else effects.Failed(kind="InstanceGone", text="")
        )

    def _list(self, effect: effects.ListInstances) -> None:
        machines, workers = self._world.machines, self._controller.state.record.workers.values()
        known = [worker.instance_id for worker in workers if worker.instance_id is not None]
        listed = effects.ListedInstances(
            instances=tuple([_instance(each, each.stage) for each in machines.values()]),
            gone=tuple(each for each in known if each not in machines),
        )
        self._on_result(effect, listed)


def _launch_ids(first: int) -> tuple[str, ...]:
    return tuple(f"{first + number:012x}" for number in range(LAUNCH_IDS_PER_PLAN))


@lru_cache(maxsize=4096)
def _instance(machine: Machine, stage: Stage) -> Instance:
    return Instance.model_construct(
        id=machine.id,
        actual_status=STATUS[stage],
        intended_status="stopped" if stage in (Stage.STOPPED, Stage.STOPPING) else "running",
        status_msg=None,
        label=LABEL_PREFIX + machine.launch_id,
        machine_id=machine.machine_id,
        dph_total=machine.price,
        storage_total_cost=machine.storage_price,
    )
