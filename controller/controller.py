"""The controller of one endpoint, sans I/O: events with their time come in, effects go out.

The workflow, and the simulator in place of the workflow, host it: they pass events on, ask `due` after each of them,
have a plan made when there is a reason, carry effects out and report their results.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Self, TypeVar

from controller import metrics_events, operation_results, plan_due
from controller.drain_handshake import expire_tickets, note_drains_seen, recheck_at
from controller.effects import (
    LIST,
    ChangeInstance,
    CreateInstance,
    Decision,
    Effect,
    Failed,
    FoundOffers,
    ListedInstances,
    ListInstances,
    Result,
    SearchOffers,
)
from controller.state import EndpointStateBook
from controller.whatif import advice_events
from controller.whatif.advice import Advice
from policy.capacity.supply import holds_requests
from policy.planning.planner import plan
from policy.state.apply_operation import apply_operation, launched_worker
from policy.state.billing import bills_due
from policy.state.lifecycle import InvalidTransition, is_booting, is_hot
from policy.state.observation import Observation, Offers
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
    Update,
)
from policy.state.worker import Worker
from policy.tuning import Tuning
from stoker_wire.control import EndpointSpec
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.messages import MetricsBatch
from stoker_wire.parsing.limits import ERROR_BYTES_MAX, shortened
from stoker_wire.workergroup import Workergroup

T = TypeVar("T")
WorkerOperation = Activate | StartDrain | CancelDrain | Stop | Destroy | Reboot | Update

FALLBACK_SECONDS = 3600.0
"""Longest time between plans without events. Doubled: an endpoint without events is planned half as often."""
REPLAN_SECONDS = 10.0
"""After a planner that failed. Doubled: a passing fault costs ten more seconds."""
CONFIRM_SECONDS = 30.0
"""Between two lists of a deleted endpoint that has no worker left. Doubled: a delete ends up to 30 s later."""
LIST_LAG_SECONDS = 5.0
"""A list may miss an instance that is younger than this. Too short, and a retried create rents a second instance."""
TIMER_LATE_SECONDS = 0.2
"""Timers fire this long after the wanted time, so that work due a few milliseconds later is due as well. Otherwise such
work would need a second timer and a second plan."""
SUSPENDED_SECONDS = 30.0
"""A timer that fires later than this tells nothing about workers that did not report in time. Doubled: after a shorter
sleep of the machine, workers are rebooted that could not report."""
TIMER_SECONDS_MIN = 0.5
"""Shortest timer, so that no plan can make its host spin."""
BILLS_SECONDS = 3600.0
"""Between two looks at the bills while instances run. Doubled: the recorded costs are estimates for twice as long."""
NOTICE_SECONDS = 3.0
"""Engines read the memo every second, so after this time none routes to a worker that is released. Doubled: the
release of a loading worker costs three more seconds."""
_FAULT_CHARS = 300


class EndpointController:
    """Owns an endpoint's state and decides when a plan is due. Every method that takes `now` takes Unix seconds."""

    def __init__(self, state: EndpointStateBook, *, label_prefix: str) -> None:
        self.state = state
        self.due = "the endpoint starts"
        """Why a plan is due; empty: none is."""
        self.in_flight: dict[str, Effect] = {}
        """Effects without a result yet, by key, oldest first."""
        self._label_prefix = label_prefix
        self._why = ""
        """Why the plan that is being made was due."""
        self._found_nothing_at = 0.0
        """When the last list was asked for that showed no instance at all."""

    @classmethod
    def simulated(
        cls, config: EndpointConfig, workergroups: tuple[Workergroup, ...], tuning: Tuning, label_prefix: str
    ) -> Self:
        """The controller of a simulated endpoint, whose host keeps the accounts."""
        spec = EndpointSpec(
            endpoint_name="simulated", endpoint_id=1, config=config, workergroups=workergroups
        )
        state = EndpointStateBook(spec, tuning=tuning, counts_dollars=False)
        return cls(state, label_prefix=label_prefix)

    def __repr__(self) -> str:
        workers = len(self.state.record.workers)
        return f"<EndpointController {self.state.name}, {workers} workers, plan due: {self.due or 'no'}>"

    # events: what engines and people sent

    def on_metrics(self, batches: Sequence[MetricsBatch], now: float) -> None:
        """Batches of one engine, oldest first."""
        self.on_change(metrics_events.receive, batches, now)

    def on_change(self, change: Callable[[EndpointStateBook, T, float], str], value: T, now: float) -> None:
        """Something came from outside: `change` (`config_events`, `key_events`, …) applies it to the state.

        It returns why a plan is due; empty: none is.
        """
        self.state.count_dollars(now)
        self._set_due(change(self.state, value, now))

    def on_timer(self, now: float) -> None:
        """The time that `replan_at` named has come.

        A late timer shows that the deployment was suspended: no engine could hear a worker meanwhile.
        """
        record = self.state.record
        if record.replan_at is not None and now - record.replan_at > SUSPENDED_SECONDS:
            record.listening_since = now
        record.replan_at = None
        self._set_due("the time has come")

    # plans

    @property
    def advice(self) -> Advice | None:
        """The second config to plan beside the live one."""
        return None if self.state.record.deleting else self.state.record.advice

    def observe(self, launch_ids: tuple[str, ...], now: float) -> Observation:
        """The planner's input. After this call no plan is due until the next event."""
        self._why, self.due = self.due, ""
        self.state.count_dollars(now)
        expire_tickets(self.state, now)
        note_drains_seen(self.state, now)
        record = self.state.record
        record.load_at_plan = plan_due.level(record.load) or 0.0
        return self.state.observation(
            now,
            launch_ids=launch_ids,
            listing_in_progress=LIST in self.in_flight,
            searching=tuple(
                each.workergroup.id for each in self.in_flight.values() if isinstance(each, SearchOffers)
            ),
        )

    def on_plan(self, decision: Decision, observation: Observation, now: float) -> tuple[Effect, ...]:
        """Adopts the plan that was made of the observation. Returns what the host has to carry out, in this order."""
        planned_at = observation.now
        if decision.fault:
            self._note_planner(decision.fault, planned_at)
        for sentence in decision.refused:
            self.state.log.note(planned_at, "fail", f"refused: {sentence}", subject="plan")
        self.state.adopt(decision.plan, planned_at)
        advice_events.adopt(self.state, decision.advice, planned_at)
        before = {worker.launch_id: worker for worker in observation.workers}
        effects = [
            effect
            for operation in decision.plan.operations
            if not self._is_stale(operation, before, now)
            for effect in self._begin(operation, now)
        ]
        record = self.state.record
        due = [record.replan_at or planned_at + FALLBACK_SECONDS, recheck_at(self.state, planned_at)]
        record.replan_at = min(at for at in due if at is not None)
        if record.deleting:
            effects += self._confirm_empty(now)
        return tuple(effects)

    def plan_at_once(self, launch_ids: tuple[str, ...], now: float) -> tuple[Plan, tuple[Effect, ...]]:
        """Makes and adopts a plan in one step, for a simulation. The workflow has an activity make it."""
        observation = self.observe(launch_ids, now)
        made = plan(observation, self.state.tuning)
        return made, self.on_plan(Decision(plan=made), observation, now)

    def on_plan_failed(self, fault: str, observation: Observation, now: float) -> None:
        """No plan could be made: the next one is due soon."""
        self._note_planner(fault, observation.now)
        self.state.record.replan_at = now + REPLAN_SECONDS

    # results

    def resume(self, now: float) -> tuple[Effect, ...]:
        """In a new run: the effects that were in flight in the previous run, to be requested again."""
        effects = []
        for worker in list(self.state.record.workers.values()):
            if worker.operation:
                effects += self._resume(worker, now)
        return tuple(effects)

    def on_result(self, effect: Effect, result: Result, now: float) -> None:
        """An effect was carried out, or failed for good."""
        self.in_flight.pop(effect.key, None)
        match effect:
            case ListInstances():
                self.on_listing(effect, result, now)
            case SearchOffers():
                self._on_offers(effect, result, now)
            case CreateInstance() | ChangeInstance():
                revision = None if effect.workergroup is None else effect.workergroup.revision
                operation_results.ended(self.state, effect.worker, result, now, revision=revision)
                self._set_due(f"the {effect.worker.operation} of {effect.key} ended")

    def on_listing(self, effect: ListInstances, result: Result, now: float) -> None:
        """The marketplace answered a list."""
        if isinstance(result, Failed):
            self.state.log.note(now, "fail", f"list: {result.text}")
        if not isinstance(result, ListedInstances):
            return
        if not effect.launch_ids:
            self.state.record.listed_whole_at = effect.asked_at
            if not result.instances:
                self._found_nothing_at = effect.asked_at
        prefix = self._label_prefix
        self._set_due(operation_results.listed(self.state, result, effect.asked_at, now, label_prefix=prefix))

    def _on_offers(self, effect: SearchOffers, result: Result, now: float) -> None:
        group, reason = effect.workergroup, ""
        if isinstance(result, Failed):
            words = ": ".join(part for part in (result.kind, result.text) if part)
            reason = shortened(words, ERROR_BYTES_MAX)
            self.state.log.note(
                now, "fail", f"search: {reason}", subject=str(group.id), workergroup_id=group.id
            )
        self.state.offers[group.id] = Offers(
            workergroup_id=group.id,
            searched_at=now,
            revision=group.revision,
            offers=result.offers if isinstance(result, FoundOffers) else (),
            error=reason,
        )
        self._set_due("a search answered")

    def holds_requests(self, launch_id: str) -> bool:
        """Whether requests would be lost with the worker, by the newest reports."""
        worker = self.state.record.workers.get(launch_id)
        return worker is not None and holds_requests(worker)

    # the end

    @property
    def is_gone(self) -> bool:
        """Whether the endpoint is deleted and the marketplace has shown that nothing of it is left."""
        record = self.state.record
        if not record.deleting or record.workers or self.in_flight or record.emptied_at is None:
            return False
        return self._found_nothing_at >= record.emptied_at + LIST_LAG_SECONDS

    def _confirm_empty(self, now: float) -> list[Effect]:
        """A deleted endpoint without workers lists once more, late enough for the marketplace to have caught up."""
        record = self.state.record
        changing = any(isinstance(each, CreateInstance | ChangeInstance) for each in self.in_flight.values())
        if record.workers or changing:
            record.emptied_at = None
            return []
        if record.emptied_at is None:
            record.emptied_at = now
        due, effects = record.emptied_at + LIST_LAG_SECONDS, list[Effect]()
        if now >= due:
            effects = self._list("the endpoint is deleted: nothing may be left", whole=True, now=now)
            due = now + CONFIRM_SECONDS
        record.replan_at = min(record.replan_at or due, due)
        return effects

    # what each operation does to the record before it is carried out

    def _is_stale(self, operation: Operation, before: Mapping[str, Worker], now: float) -> bool:
        """Whether the worker became ready while the plan was made: the next plan drains it instead of stopping it."""
        if not isinstance(operation, Stop | Destroy | Update):
            return False
        then, current = before.get(operation.launch_id), self.state.record.workers.get(operation.launch_id)
        if then is None or current is None or is_hot(then) or not is_hot(current):
            return False
        said = f"{operation.op} was decided while it was {then.state.words}: it takes requests now"
        self.state.note_worker(current, now, "wait", said, level=1)
        self._set_due("a worker was ready before a plan knew it")
        return True

    def _begin(self, operation: Operation, now: float) -> list[Effect]:
        match operation:
            case Search():
                group = self.state.workergroup(operation.workergroup_id)
                return [] if group is None else self._start(SearchOffers(workergroup=group))
            case PollInstances():
                return self._list(operation.reason, whole=operation.whole, now=now)
            case Recruit():
                return self._recruit(operation, now)
            case _:
                return self._on_worker(operation, now)

    def _list(self, reason: str, *, whole: bool, now: float) -> list[Effect]:
        record = self.state.record
        ledger = record.ledger
        bills_since = ledger.bills_since if bills_due(ledger, now, BILLS_SECONDS) else None
        whole = whole or bills_since is not None
        return self._start(
            ListInstances(
                reason=reason,
                asked_at=now,
                launch_ids=() if whole else tuple(record.workers),
                known_ids=_known_ids(record.workers.values()),
                bills_since=bills_since,
            )
        )

    def _recruit(self, operation: Recruit, now: float) -> list[Effect]:
        record, offer = self.state.record, operation.offer
        group = self.state.workergroup(operation.workergroup_id)
        if group is None or operation.launch_id in record.workers:
            return []
        worker = launched_worker(operation, now)
        record.pending_offers[operation.launch_id] = offer
        record.workers[operation.launch_id] = worker
        self.state.note_worker(worker, now, operation.op, operation.reason, numbers=operation.numbers)
        return self._start(CreateInstance(worker=worker, workergroup=group, offer=offer))

    def _on_worker(self, asked: WorkerOperation, now: float) -> list[Effect]:
        worker = self.state.record.workers.get(asked.launch_id)
        if worker is None or worker.operation:
            return []
        self.state.note_worker(worker, now, asked.op, asked.reason, numbers=asked.numbers)
        try:
            changed = apply_operation(worker, asked, now)
        except InvalidTransition as fault:
            self.state.note_worker(worker, now, "fail", f"{asked.op}: {fault}")
            return []
        if changed.operation not in {"", "destroy"} and worker.instance_id is None:
            self.state.log.note(
                now, "fail", f"{asked.op}: it has no instance yet", subject=asked.launch_id, level=2
            )
            return []
        self.state.record.workers[worker.launch_id] = changed
        if not changed.operation:
            return []
        return self._start(
            ChangeInstance(
                worker=changed,
                workergroup=self.state.workergroup(worker.workergroup_id),
                may_get_requests=isinstance(asked, Stop | Destroy) and _may_become_ready(worker),
            )
        )

    def _resume(self, worker: Worker, now: float) -> list[Effect]:
        group = self.state.workergroup(worker.workergroup_id)
        if worker.operation != "create":
            return self._start(
                ChangeInstance(
                    worker=worker,
                    workergroup=group,
                    resumed=True,
                    may_get_requests=_waits_for_requests(worker),
                )
            )
        offer = self.state.record.pending_offers.get(worker.launch_id)
        if offer is not None and group is not None:
            return self._start(CreateInstance(worker=worker, workergroup=group, offer=offer, resumed=True))
        lost = "its offer was not carried over" if offer is None else "its workergroup was removed"
        operation_results.ended(self.state, worker, Failed(kind="", text=lost), now)
        return []

    # bookkeeping

    def _start(self, effect: Effect) -> list[Effect]:
        """Registers the effect, unless one of this key is in flight."""
        if effect.key in self.in_flight:
            return []
        self.in_flight[effect.key] = effect
        return [effect]

    def _set_due(self, reason: str) -> None:
        self.due = self.due or reason

    def _note_planner(self, fault: str, at: float) -> None:
        self.state.log.note(at, "fail", f"planner: {fault}"[:_FAULT_CHARS], subject=self._why)


def _may_become_ready(worker: Worker) -> bool:
    """Whether engines may route to the worker at any moment: its first report reaches them before this controller."""
    return is_booting(worker) and worker.instance_id is not None


def _waits_for_requests(worker: Worker) -> bool:
    """Whether the previous run waited for requests that the worker got although it was never drained."""
    ends = worker.operation in {"stop", "destroy"} and worker.drain is None and not worker.error
    return ends and holds_requests(worker)


def _known_ids(workers: Iterable[Worker]) -> tuple[int, ...]:
    """Instances whose absence from a list is read as news; a destroy in flight confirms its own end."""
    return tuple(
        worker.instance_id
        for worker in workers
        if worker.instance_id is not None and worker.operation != "destroy"
    )
