"""The production policy at the controls: the same planner, the same folding of news, in place of the workflow.

What the endpoint's workflow does with signals and activity results is done here with simulated ones, in the same order:
fold, and plan when something material changed, when an operation ended, or when the plan asked to be reminded.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policy.load import history as load_windows
from policy.load.history import LoadHistory
from policy.planning.planner import plan as decide
from policy.state.billing import CostLedger
from policy.state.observation import LAUNCH_IDS_PER_PLAN, Memory, Observation, Offers
from policy.state.plan import (
    Activate,
    CancelDrain,
    Destroy,
    Operation,
    Plan,
    PollInstances,
    Reboot,
    Recruit,
    Search,
    StartDrain,
    Stop,
)
from policy.state.plan_effects import expected, expected_learned
from policy.state.reconcile import fold_listing
from policy.state.worker import MachineStats, Worker
from policy.state.worker_events import FoldResult, fold_drain_seen, fold_metrics, fold_operation_result
from policy.tuning import DEFAULT_TUNING, Tuning
from simulation.machine import Machine, Stage
from simulation.signal_sender import Batch, EngineNotice
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.market import Instance, Offer
from stoker_wire.states import WorkerState as S
from stoker_wire.workergroup import Workergroup

if TYPE_CHECKING:
    from simulation.world import World

EPOCH = 1_699_833_600.0
"""The world's zero in Unix seconds, a Monday at midnight UTC: the policy treats 0 as "never"."""

GROUP = Workergroup(id=1, template_hash="simulated")
LABEL_PREFIX = "stoker:simulated:"
RATE_SECONDS = 30.0
RATE_MOVED = 0.15
ALARM_LATE_SECONDS = 0.2
ALARM_SECONDS_MIN = 0.5
"""As the workflow's alarm rings: a little late, so that what is due in the same moment is due then, and never at
once."""

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


@dataclass(slots=True)
class Told:
    """One worker in the words that the policy expects."""

    instance_id: int
    condition: str
    perf: float
    load: float
    in_flight: int
    tickets_open: int
    reported_at: float
    url: str
    error: str
    suspect_since: float | None
    official: bool = False
    incarnation: str = ""
    started_at: float = 0.0


class SimulatedController:
    """Drives `policy.planning.planner`. `decisions` keeps what was ordered and why, bounded."""

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
        self.group = group
        self.plans = 0
        self.decisions: list[tuple[float, str, str]] = []
        self._decisions_max = decisions_max
        self._workers: dict[str, Worker] = {}
        self._machines: dict[str, Machine] = {}
        self._load = LoadHistory()
        self._learned = MachineStats()
        self._memory = Memory()
        self._ledger = CostLedger()
        self._offers: tuple[Offers, ...] = ()
        self._listed_at = 0.0
        self._listing_in_progress = False
        self._searching: tuple[int, ...] = ()
        self._launches = 0
        self._ids = _launch_ids(0)
        self._shown: dict[int, tuple[Stage, Instance]] = {}
        """Each machine as the listing showed it last: most look the same next time."""
        self._load_at_plan = 0.0
        self._hot_at_plan = 0.0
        self._alarm = 0
        self._due = False
        self._world: World

    @property
    def learned(self) -> MachineStats:
        """What it learned so far."""
        return self._learned

    def begin(self, world: "World") -> None:
        """The endpoint's workflow starts."""
        self._world = world
        self._plan_soon()

    # -- news

    def hear(self, batch: Batch, now: float) -> None:
        """A signal with metrics."""
        unix = EPOCH + now
        queued_before = self._load.backlog_load
        last = batch.last_request_at
        for number, window in enumerate(batch.windows):
            self._load = load_windows.fold(
                self._load,
                engine_id="engine",
                sequence=batch.sequence * 2 + number,
                at=EPOCH + window.ended_at,
                window_s=window.seconds,
                load=window.load,
                requests=window.requests,
                queued_load=batch.queued_load,
                queued_requests=batch.queued_requests,
                oldest_wait_s=batch.oldest_wait_s,
                last_request_at=None if last is None else EPOCH + last,
            )
        material = bool(batch.urgent)
        for word in batch.words:
            material |= self._hear_worker(word, unix)
        if material or self._queue_moved(queued_before) or self._level_moved():
            self._plan()

    def _hear_worker(self, word: EngineNotice, unix: float) -> bool:
        worker = self._workers.get(word.machine.launch_id)
        if worker is None:
            return False
        told = Told(
            instance_id=word.machine.id,
            condition="ready",
            perf=word.perf,
            load=word.load,
            in_flight=word.in_flight,
            tickets_open=0,
            reported_at=EPOCH + word.reported_at if not word.gone else 0.0,
            url="",
            error="",
            suspect_since=unix if word.gone else None,
        )
        folded = fold_metrics(worker, told, now=unix, learned=self._learned)
        drained = self._take(worker.launch_id, folded)
        after = self._workers.get(worker.launch_id)
        if after is not None and after.drain is not None:
            if word.drain_seen:
                self._workers[worker.launch_id] = fold_drain_seen(after, at=unix)
            drained |= _holding(worker) != _holding(after)
        return drained or word.gone

    def _take(self, launch_id: str, folded: FoldResult) -> bool:
        self._learned = folded.learned
        if folded.worker is None:
            self._workers.pop(launch_id, None)
            self._machines.pop(launch_id, None)
        else:
            self._workers[launch_id] = folded.worker
        return folded.material

    def _queue_moved(self, before: float) -> bool:
        queued = self._load.backlog_load
        return (queued > 0 and (before <= 0 or queued > before * (1 + RATE_MOVED))) or (before > 0 >= queued)

    def _level_moved(self) -> bool:
        level = load_windows.rate(self._load, RATE_SECONDS)
        if level is None:
            return False
        slack = max(self._load_at_plan * RATE_MOVED, 0.01 * self._hot_at_plan, 1e-9)
        return abs(level - self._load_at_plan) > slack

    # -- plans

    def _plan_soon(self) -> None:
        """Several results at one moment make one plan."""
        if not self._due:
            self._due = True
            self._world.after(0.0, self._plan_now)

    def _plan_now(self, _: Any) -> None:
        self._due = False
        self._plan()

    def _wake(self, alarm: int) -> None:
        if alarm == self._alarm:
            self._plan()

    def _plan(self) -> None:
        now = EPOCH + self._world.now
        plan = decide(
            Observation(
                now=now,
                config=self.config,
                workergroups=(self.group,),
                workers=tuple(self._workers.values()),
                load=self._load,
                offers=self._offers,
                learned=self._learned,
                listed_at=self._listed_at,
                launch_ids=self._ids,
                memory=self._memory,
                listing_in_progress=self._listing_in_progress,
                searching=self._searching,
            ),
            self.tuning,
        )
        self.plans += 1
        self._memory = plan.memory
        self._load_at_plan = load_windows.rate(self._load, RATE_SECONDS) or 0.0
        self._hot_at_plan = plan.targets.hot_ready
        if plan.operations:
            self._carry_out(plan, now)
        if plan.failed_hosts:
            self._learned = expected_learned(self._learned, plan, now)
        self._alarm += 1
        if plan.replan_at is not None:
            due = plan.replan_at - EPOCH + ALARM_LATE_SECONDS
            self._world.at(max(due, self._world.now + ALARM_SECONDS_MIN), self._wake, self._alarm)

    def _carry_out(self, plan: Plan, now: float) -> None:
        before = self._workers
        self._workers = {worker.launch_id: worker for worker in expected(before.values(), plan, now)}
        for operation in plan.operations:
            self._note(operation)
            self._begin(operation)

    def _note(self, operation: Operation) -> None:
        if not isinstance(operation, PollInstances | Search) and len(self.decisions) < self._decisions_max:
            self.decisions.append((self._world.now, operation.op, operation.reason))

    def _begin(self, operation: Operation) -> None:
        world = self._world
        match operation:
            case Search():
                self._searching = (operation.workergroup_id,)
                world.search(self._found)
            case PollInstances():
                self._listing_in_progress = True
                asked_at = EPOCH + world.now
                world.after(world.settings.operation_seconds, self._listed, asked_at)
            case Recruit():
                self._launches += 1
                self._ids = _launch_ids(self._launches)
                launch_id = operation.launch_id
                world.create(launch_id, operation.offer.id, lambda made: self._created(launch_id, made))
            case StartDrain() | CancelDrain():
                machine = self._machines.get(operation.launch_id)
                if machine is not None:
                    world.front.drain(machine, isinstance(operation, StartDrain))
            case Activate():
                self._call(operation.launch_id, "start", world.start)
            case Stop():
                self._call(operation.launch_id, "stop", world.stop)
            case Destroy():
                self._call(operation.launch_id, "destroy", world.destroy)
            case Reboot():
                self._call(operation.launch_id, "reboot", world.reboot)
            case _:
                raise NotImplementedError(f"the simulated endpoint never changes its revision: {operation}")

    def _call(self, launch_id: str, name: str, call: Any) -> None:
        machine = self._machines.get(launch_id)
        if machine is None:
            self._world.after(0.0, lambda _: self._ended(launch_id, name, False))
        else:
            call(machine, lambda ok: self._ended(launch_id, name, ok))

    # -- results

    def _found(self, offers: tuple[Offer, ...]) -> None:
        now = EPOCH + self._world.now
        self._searching = ()
        self._offers = (Offers(workergroup_id=self.group.id, searched_at=now, offers=offers),)
        self._plan_soon()

    def _created(self, launch_id: str, machine: Machine | None) -> None:
        worker = self._workers.get(launch_id)
        now = EPOCH + self._world.now
        if worker is None:
            return
        if machine is not None:
            self._machines[launch_id] = machine
        folded = fold_operation_result(
            worker,
            "create",
            now=now,
            learned=self._learned,
            ok=machine is not None,
            error_kind="" if machine is not None else "offer_gone",
            instance_id=None if machine is None else machine.id,
            tuning=self.tuning,
        )
        self._take(launch_id, folded)
        after = self._workers.get(launch_id)
        if after is not None and machine is not None:
            self._workers[launch_id] = after.replace(storage_dollars_per_hour=machine.storage_price)
        self._plan_soon()

    def _ended(self, launch_id: str, name: str, ok: bool) -> None:
        worker = self._workers.get(launch_id)
        if worker is None:
            return
        now = EPOCH + self._world.now
        folded = fold_operation_result(
            worker,
            name,
            now=now,
            learned=self._learned,
            ok=ok,
            error_kind="" if ok else "instance_gone",
            tuning=self.tuning,
        )
        self._take(launch_id, folded)
        after = self._workers.get(launch_id)
        if ok and after is not None:
            if name == "stop":
                stopped = S.INACTIVE if after.loaded_once else S.CREATED
                self._workers[launch_id] = after.replace(state=stopped, since=now, drain=None, retry_at=0.0)
            elif name == "destroy":
                del self._workers[launch_id]
                self._machines.pop(launch_id, None)
        self._plan_soon()

    def _listed(self, asked_at: float) -> None:
        now = EPOCH + self._world.now
        self._listing_in_progress = False
        self._listed_at = asked_at
        listing = fold_listing(
            self._workers.values(),
            [self._instance(machine) for machine in self._world.machines.values()],
            gone={
                worker.instance_id
                for worker in self._workers.values()
                if worker.instance_id is not None and worker.instance_id not in self._world.machines
            },
            now=now,
            asked_at=asked_at,
            label_prefix=LABEL_PREFIX,
            learned=self._learned,
        )
        self._workers = {worker.launch_id: worker for worker in (*listing.workers, *listing.orphans)}
        self._learned = listing.learned
        for worker in listing.gone:
            self._machines.pop(worker.launch_id, None)
        if listing.material:
            self._plan_soon()

    def _instance(self, machine: Machine) -> Instance:
        shown = self._shown.get(machine.id)
        if shown is None or shown[0] is not machine.stage:
            shown = self._shown[machine.id] = (machine.stage, _instance(machine))
        return shown[1]


def _launch_ids(used: int) -> tuple[str, ...]:
    return tuple(f"{used + number:012x}" for number in range(LAUNCH_IDS_PER_PLAN))


def _holding(worker: Worker) -> tuple[bool, bool]:
    return (worker.in_flight > 0, worker.load > 0)


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
