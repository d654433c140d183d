"""Hosts the production controller in the simulated world, in place of the workflow.

Batches, results and listings of the simulated engine and marketplace become the controller's events; its effects become
calls of the simulated marketplace.
"""

from typing import TYPE_CHECKING, Any

from controller.controller import EndpointController
from controller.effects import (
    ChangeInstance,
    CreatedInstance,
    CreateInstance,
    Decision,
    Done,
    Effect,
    Failed,
    FoundOffers,
    ListedInstances,
    ListInstances,
    Result,
    SearchOffers,
)
from controller.state import EndpointStateBook
from policy.planning.planner import plan
from policy.state.observation import LAUNCH_IDS_PER_PLAN
from policy.state.plan import CancelDrain, Plan, PollInstances, Search, StartDrain
from policy.state.worker import MachineStats
from policy.tuning import DEFAULT_TUNING, Tuning
from simulation.machine import Machine, Stage
from simulation.signal_sender import Batch, EngineNotice
from stoker_wire.control import EndpointSpec
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.market import Instance, Offer
from stoker_wire.messages import Condition, MetricsBatch, WorkerMetrics
from stoker_wire.workergroup import Workergroup

if TYPE_CHECKING:
    from simulation.world import World

EPOCH = 1_699_833_600.0
"""The world's zero in Unix seconds, a Monday at midnight UTC: the policy treats 0 as "never"."""

GROUP = Workergroup(id=1, template_hash="simulated")
LABEL_PREFIX = "stoker:simulated:"
TIMER_LATE_SECONDS = 0.2
TIMER_SECONDS_MIN = 0.5
"""As the workflow's timer: a little late, so that what is due in the same moment is due then, and never at once."""

_BATCH = MetricsBatch(engine_id="engine", sequence=0, sent_at=0.0)
_WORKER = WorkerMetrics(launch_id="", instance_id=0, condition=Condition.READY)
"""Copied with other values: several times as fast as a new model."""

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

    def __init__(
        self,
        config: EndpointConfig,
        *,
        tuning: Tuning = DEFAULT_TUNING,
        name: str = "stoker",
        group: Workergroup = GROUP,
        decisions_max: int = 2000,
    ) -> None:
        self.name = name
        self.config = config
        self.tuning = tuning
        self.plans = 0
        self.decisions: list[tuple[float, str, str]] = []
        self._decisions_max = decisions_max
        spec = EndpointSpec(endpoint_name="simulated", endpoint_id=1, config=config, workergroups=(group,))
        self._state = EndpointStateBook(spec, tuning=tuning, counts_dollars=False)
        self._controller = EndpointController(self._state, label_prefix=LABEL_PREFIX)
        self._machines: dict[str, Machine] = {}
        self._launches = 0
        self._ids = _launch_ids(0)
        self._shown: dict[int, tuple[Stage, Instance]] = {}
        """Each machine in the last listing, reused while it is unchanged."""
        self._timer = 0
        self._planning = False
        self._world: World

    @property
    def learned(self) -> MachineStats:
        """Statistics of machine kinds and hosts, so far."""
        return self._state.record.learned

    def begin(self, world: "World") -> None:
        """The endpoint starts."""
        self._world = world
        self._plan_soon()

    # events

    def hear(self, batch: Batch, now: float) -> None:
        """A signal with metrics: as many batches as there are windows, the workers in the last one."""
        last = batch.last_request_at
        sent = []
        for number, window in enumerate(batch.windows):
            final = number == len(batch.windows) - 1
            sent.append(
                _BATCH.model_copy(
                    update={
                        "sequence": batch.sequence * 2 + number,
                        "sent_at": EPOCH + window.ended_at,
                        "window_s": window.seconds,
                        "arrived_load": window.load,
                        "arrived_requests": window.requests,
                        "queued_load": batch.queued_load,
                        "queued_requests": batch.queued_requests,
                        "oldest_wait_s": batch.oldest_wait_s,
                        "last_request_at": None if last is None else EPOCH + last,
                        "urgent": batch.urgent if final else "",
                        "workers": tuple(_metrics(each, EPOCH + now) for each in batch.words)
                        if final
                        else (),
                    }
                )
            )
        self._controller.on_metrics(sent, EPOCH + now)
        if self._controller.due:
            self._plan()

    def _on_timer(self, timer: int) -> None:
        if timer == self._timer:
            self._controller.on_timer()
            self._plan()

    def _on_result(self, effect: Effect, result: Result) -> None:
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
        world, now = self._world, EPOCH + self._world.now
        observation = self._controller.observe(self._ids, now)
        made = plan(observation, self.tuning)
        self.plans += 1
        effects = self._controller.on_plan(Decision(plan=made), observation, now)
        self._note(made)
        for effect in effects:
            self._carry_out(effect)
        self._timer += 1
        due = self._state.record.replan_at
        if due is not None:
            at = max(due - EPOCH + TIMER_LATE_SECONDS, world.now + TIMER_SECONDS_MIN)
            world.at(at, self._on_timer, self._timer)

    def _note(self, made: Plan) -> None:
        """Keeps what was ordered, and shows the engine which workers drain."""
        for operation in made.operations:
            if isinstance(operation, PollInstances | Search):
                continue
            if len(self.decisions) < self._decisions_max:
                self.decisions.append((self._world.now, operation.op, operation.reason))
            if isinstance(operation, StartDrain | CancelDrain):
                machine = self._machines.get(operation.launch_id)
                if machine is not None:
                    self._world.front.drain(machine, isinstance(operation, StartDrain))

    # effects

    def _carry_out(self, effect: Effect) -> None:
        world = self._world
        match effect:
            case SearchOffers():
                world.search(lambda offers: self._found(effect, offers))
            case ListInstances():
                world.after(world.settings.operation_seconds, self._list, effect)
            case CreateInstance():
                self._launches += 1
                self._ids = _launch_ids(self._launches)
                world.create(effect.key, effect.offer.id, lambda machine: self._created(effect, machine))
            case ChangeInstance():
                self._change(effect)

    def _found(self, effect: SearchOffers, offers: tuple[Offer, ...]) -> None:
        self._on_result(effect, FoundOffers(offers=offers))

    def _created(self, effect: CreateInstance, machine: Machine | None) -> None:
        if machine is None:
            self._on_result(effect, Failed(kind="OfferGone", text=""))
            return
        self._machines[effect.key] = machine
        created = CreatedInstance(instance_id=machine.id, storage_dollars_per_hour=machine.storage_price)
        self._on_result(effect, created)

    def _change(self, effect: ChangeInstance) -> None:
        world, machine = self._world, self._machines.get(effect.key)
        call = {"start": world.start, "stop": world.stop, "reboot": world.reboot, "destroy": world.destroy}
        if machine is None:
            world.after(0.0, lambda _: self._changed(effect, False))
        else:
            call[effect.worker.operation](machine, lambda ok: self._changed(effect, ok))

    def _changed(self, effect: ChangeInstance, ok: bool) -> None:
        # the world answers when the machine has reached the state, not when it accepts the call
        self._on_result(effect, Done(confirmed=True) if ok else Failed(kind="InstanceGone", text=""))

    def _list(self, effect: ListInstances) -> None:
        machines, workers = self._world.machines, self._state.record.workers.values()
        known = [worker.instance_id for worker in workers if worker.instance_id is not None]
        listed = ListedInstances(
            instances=tuple(self._instance(machine) for machine in machines.values()),
            gone=tuple(each for each in known if each not in machines),
        )
        self._on_result(effect, listed)

    def _instance(self, machine: Machine) -> Instance:
        shown = self._shown.get(machine.id)
        if shown is None or shown[0] is not machine.stage:
            shown = self._shown[machine.id] = (machine.stage, _instance(machine))
        return shown[1]


def _launch_ids(used: int) -> tuple[str, ...]:
    return tuple(f"{used + number:012x}" for number in range(LAUNCH_IDS_PER_PLAN))


def _metrics(notice: EngineNotice, now: float) -> WorkerMetrics:
    return _WORKER.model_copy(
        update={
            "launch_id": notice.machine.launch_id,
            "instance_id": notice.machine.id,
            "perf": notice.perf,
            "load": notice.load,
            "in_flight": notice.in_flight,
            "reported_at": 0.0 if notice.gone else EPOCH + notice.reported_at,
            "drain_seen": notice.drain_seen,
            "suspect_since": now if notice.gone else None,
        }
    )


def _instance(machine: Machine) -> Instance:
    return Instance.model_construct(
        id=machine.id,
        actual_status=STATUS[machine.stage],
        intended_status="stopped" if machine.stage in (Stage.STOPPED, Stage.STOPPING) else "running",
        status_msg=None,
        label=LABEL_PREFIX + machine.launch_id,
        machine_id=machine.machine_id,
        dph_total=machine.price,
        storage_total_cost=machine.storage_price,
    )
