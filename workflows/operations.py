"""A plan's operations as activities: tasks that the workflow owns, whose results are folded into the state.

A worker carries the name of its operation (`Worker.operation`) from the moment that it is decided until its result
is folded in: that is the intent which survives a continue-as-new, and which keeps two operations off one worker.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from activities.instances import MarketActivities
from activities.messages import (
    CreateInstance,
    DestroyInstance,
    ListInstances,
    OnInstance,
    SearchOffers,
    UpdateInstance,
    label_prefix,
    launch_label,
)
from policy.state.billing import bills_due
from policy.state.lifecycle import InvalidTransition, is_hot
from policy.state.observation import Offers
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
from policy.state.plan_effects import apply_operation, launched_worker
from policy.state.worker import Worker
from policy.state.worker_events import RESTARTS
from stoker_wire.control import MARKET_TASK_QUEUE
from stoker_wire.market import Offer
from stoker_wire.parsing.limits import ERROR_BYTES_MAX, shortened
from stoker_wire.states import WorkerState
from stoker_wire.workergroup import Workergroup
from workflows import operation_results, options
from workflows.state import EndpointStateBook

OnWorker = Activate | StartDrain | CancelDrain | Stop | Destroy | Reboot | Update

LISTING = "list"
"""The key of the listing's task; workers' tasks have their launch id, searches `search:<workergroup>`."""
_SEARCH = "search:"


class Operations:
    """Everything that is under way for one endpoint.

    `done` is called whenever a result has been folded in, with why a plan is due, or nothing.
    """

    def __init__(self, book: EndpointStateBook, done: Callable[[str], None]) -> None:
        self._book = book
        self._done = done
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.found_nothing_at = 0.0
        """When the last listing was asked for that found not one instance of the endpoint."""
        self.fault: Exception | None = None
        """A mistake in this code, for the main loop to raise: swallowed in a task, nobody would ever see it."""

    @property
    def under_way(self) -> tuple[str, ...]:
        """The keys of all tasks, in the order in which they were started."""
        return tuple(self._tasks)

    def raise_fault(self) -> None:
        """Fails the workflow task with a mistake of this code, for an operator to see and a deploy to mend."""
        if self.fault is not None:
            raise self.fault

    @property
    def changing(self) -> bool:
        """Whether anything is under way that rents or releases."""
        return any(key != LISTING and not key.startswith(_SEARCH) for key in self._tasks)

    @property
    def listing_in_progress(self) -> bool:
        """Whether a listing is under way."""
        return LISTING in self._tasks

    @property
    def searching(self) -> tuple[int, ...]:
        """The workergroups whose search is under way."""
        return tuple(int(key.removeprefix(_SEARCH)) for key in self._tasks if key.startswith(_SEARCH))

    def carry_out(self, plan: Plan, observed: Iterable[Worker] = ()) -> None:
        """Start every operation of the plan, which was made for these workers."""
        before = {worker.launch_id: worker for worker in observed}
        for operation in plan.operations:
            if not self._is_stale(operation, before):
                self._begin(operation)

    def _is_stale(self, operation: Operation, before: Mapping[str, Worker]) -> bool:
        """A worker that began to take requests while the plan was made is not stopped as if it took none: the next plan
        drains it."""
        if not isinstance(operation, Stop | Destroy | Update):
            return False
        then, now = before.get(operation.launch_id), self._book.record.workers.get(operation.launch_id)
        if then is None or now is None or is_hot(then) or not is_hot(now):
            return False
        said = f"{operation.op} was decided while it was {then.state.printed}: it takes requests now"
        self._note("wait", operation.launch_id, said, level=1, workergroup_id=now.workergroup_id)
        self._done("a worker was ready before a plan knew it")
        return True

    def resume(self) -> None:
        """After continue-as-new: ask again for everything that was under way. Every activity is idempotent, but for what
        a try of the run before still does: creates and restarts wait for its end."""
        for worker in list(self._book.record.workers.values()):
            if worker.operation:
                self._resume(worker)

    def _begin(self, operation: Operation) -> None:
        match operation:
            case Search():
                self._search(operation)
            case PollInstances():
                self.look(operation.reason, whole=operation.whole)
            case Recruit():
                self._recruit(operation, workflow.time())
            case _:
                self._on_worker(operation, workflow.time())

    # what each operation does to the record before its activity runs

    def _search(self, operation: Search) -> None:
        group = self._book.workergroup(operation.workergroup_id)
        key = f"{_SEARCH}{operation.workergroup_id}"
        if group is None or key in self._tasks:
            return
        self._spawn(key, self._find(SearchOffers(workergroup=group)))

    def look(self, reason: str, *, whole: bool = True) -> None:
        """List the endpoint's instances, unless that is under way; `whole`: and not only its known workers."""
        if LISTING not in self._tasks:
            self._spawn(LISTING, self._list(reason, whole))

    def _recruit(self, operation: Recruit, now: float) -> None:
        group = self._book.workergroup(operation.workergroup_id)
        if group is None or operation.launch_id in self._book.record.workers:
            return
        offer = operation.offer
        self._book.record.pending_offers[operation.launch_id] = offer
        self._book.record.workers[operation.launch_id] = launched_worker(operation, now)
        self._note(
            "recruit",
            operation.launch_id,
            operation.reason,
            numbers=operation.numbers,
            workergroup_id=group.id,
        )
        self._spawn(operation.launch_id, self._create(operation.launch_id, offer, asked_before=False))

    def _on_worker(self, asked: OnWorker, now: float) -> None:
        """Records the operation on a worker, and starts its activity if it has one."""
        worker = self._book.record.workers.get(asked.launch_id)
        if worker is None or worker.operation:
            return
        self._note(
            asked.op,
            asked.launch_id,
            asked.reason,
            numbers=asked.numbers,
            workergroup_id=worker.workergroup_id,
        )
        try:
            ordered_worker = apply_operation(worker, asked, now)
        except InvalidTransition as fault:
            self._note("fail", asked.launch_id, f"{asked.op}: {fault}", workergroup_id=worker.workergroup_id)
            return
        if ordered_worker.operation not in {"", "destroy"} and worker.instance_id is None:
            self._note("fail", asked.launch_id, f"{asked.op}: it has no instance yet", level=2)
            return
        self._book.record.workers[worker.launch_id] = ordered_worker
        if ordered_worker.operation:
            self._spawn(worker.launch_id, self._call(ordered_worker))

    def _resume(self, worker: Worker) -> None:
        offer = self._book.record.pending_offers.get(worker.launch_id)
        if worker.operation == "create" and offer is not None:
            self._spawn(worker.launch_id, self._create_again(worker.launch_id, offer))
        elif worker.operation == "create":
            operation_results.ended(
                self._book, worker, workflow.time(), fault=("", "its offer was not carried over")
            )
        elif worker.operation in RESTARTS:
            self._spawn(worker.launch_id, self._restart_again(worker))
        else:
            self._spawn(worker.launch_id, self._call(worker))

    # activities, and what they lead to

    async def _find(self, asked: SearchOffers) -> str:
        group = asked.workergroup
        try:
            found = await workflow.execute_activity_method(
                MarketActivities.search_offers,
                asked,
                task_queue=MARKET_TASK_QUEUE,
                **options.search_options(group.id),
            )
        except ActivityError as error:
            reason = shortened(": ".join(part for part in _fault(error) if part), ERROR_BYTES_MAX)
            self._note("fail", str(group.id), f"search: {reason}", workergroup_id=group.id)
            result = Offers(
                workergroup_id=group.id, searched_at=workflow.time(), error=reason, revision=group.revision
            )
        else:
            result = Offers(
                workergroup_id=group.id,
                searched_at=workflow.time(),
                offers=found.offers,
                revision=group.revision,
            )
        self._book.offers[group.id] = result
        return "a search answered"

    async def _create_again(self, launch_id: str, offer: Offer) -> str:
        """A try of the run before may still be at it: it has to end, and its instance to be listed, before it can be adopted."""
        seconds = options.TRY_SECONDS_MAX + options.LIST_LAG_SECONDS + 1
        await workflow.sleep(seconds, summary="the run before may be renting it")
        return await self._create(launch_id, offer, asked_before=True)

    async def _create(self, launch_id: str, offer: Offer, *, asked_before: bool) -> str:
        worker = self._book.record.workers[launch_id]
        group = self._book.workergroup(worker.workergroup_id)
        if group is None:
            fault = ("", "its workergroup was removed")
            operation_results.ended(self._book, worker, workflow.time(), fault=fault)
            return fault[1]
        asked = CreateInstance(
            endpoint_name=self._book.name,
            endpoint_id=self._book.id,
            launch_id=launch_id,
            workergroup=group,
            offer=offer,
            asked_before=asked_before,
        )
        try:
            created = await workflow.execute_activity_method(
                MarketActivities.create_instance,
                asked,
                task_queue=MARKET_TASK_QUEUE,
                **options.create_options(offer),
            )
        except ActivityError as error:
            operation_results.ended(self._book, worker, workflow.time(), fault=_fault(error))
        else:
            operation_results.created(self._book, launch_id, created, workflow.time())
        return f"the create of {launch_id} ended"

    async def _restart_again(self, worker: Worker) -> str:
        """A try of the run before may still be at it: it has to end, or it restarts a worker that serves again."""
        await workflow.sleep(options.TRY_SECONDS_MAX + 1, summary="the run before may be restarting it")
        return await self._call(worker)

    async def _call(self, worker: Worker) -> str:
        """Start, stop, reboot, destroy or update."""
        group = self._book.workergroup(worker.workergroup_id)
        gone = worker.operation == "destroy" and worker.instance_id is not None
        try:
            if worker.operation == "update":
                await self._ask_update(worker, group)
            elif worker.operation == "destroy":
                await self._ask_destroy(worker)
            else:
                await self._ask(worker)
        except ActivityError as error:
            operation_results.ended(self._book, worker, workflow.time(), fault=_fault(error))
        else:
            revision = group.revision if group is not None else None
            operation_results.ended(
                self._book, worker, workflow.time(), revision=revision, confirmed_gone=gone
            )
        return f"the {worker.operation} of {worker.launch_id} ended"

    async def _ask(self, worker: Worker) -> None:
        activity, how = {
            "start": (MarketActivities.start_instance, options.start_options(worker)),
            "stop": (MarketActivities.stop_instance, options.stop_options(worker)),
            "reboot": (MarketActivities.reboot_instance, options.reboot_options(worker)),
        }[worker.operation]
        target = OnInstance(instance_id=worker.instance_id or 0)
        await workflow.execute_activity_method(activity, target, task_queue=MARKET_TASK_QUEUE, **how)

    async def _ask_destroy(self, worker: Worker) -> None:
        await workflow.execute_activity_method(
            MarketActivities.destroy_instance,
            DestroyInstance(
                instance_id=worker.instance_id, label=launch_label(self._book.name, worker.launch_id)
            ),
            task_queue=MARKET_TASK_QUEUE,
            **options.destroy_options(options.named(worker)),
        )

    async def _ask_update(self, worker: Worker, group: Workergroup | None) -> None:
        if group is None:
            return  # the planner releases it: its workergroup was removed
        await workflow.execute_activity_method(
            MarketActivities.update_instance,
            UpdateInstance(
                endpoint_name=self._book.name,
                endpoint_id=self._book.id,
                launch_id=worker.launch_id,
                instance_id=worker.instance_id or 0,
                workergroup=group,
                restart=worker.state is WorkerState.UPDATE_REBOOTING,
            ),
            task_queue=MARKET_TASK_QUEUE,
            **options.update_options(worker),
        )

    async def _list(self, reason: str, whole: bool) -> str:
        asked_at = workflow.time()
        bills_since = self._bills_since(asked_at)
        whole = whole or bills_since is not None
        asked = ListInstances(
            prefix=label_prefix(self._book.name),
            bills_since=bills_since,
            launch_ids=() if whole else tuple(self._book.record.workers),
            known_ids=_known_ids(self._book.record.workers.values()),
        )
        try:
            listed = await workflow.execute_activity_method(
                MarketActivities.list_instances,
                asked,
                **options.list_options(reason),
            )
        except ActivityError as error:
            self._note("fail", "", f"list: {_fault(error)[1]}")
            return ""
        if not asked.launch_ids:
            self._book.record.listed_whole_at = asked_at
            if not listed.instances:
                self.found_nothing_at = asked_at
        return operation_results.listed(self._book, listed, asked_at, workflow.time())

    def _bills_since(self, now: float) -> float | None:
        ledger = self._book.record.ledger
        return ledger.bills_since if bills_due(ledger, now, options.BILLS_SECONDS) else None

    # bookkeeping

    def _spawn(self, key: str, work: Coroutine[Any, Any, str]) -> None:
        async def run() -> None:
            news = ""
            try:
                news = await work
            except Exception as fault:  # noqa: BLE001 - raised again by the main loop
                self.fault = self.fault or fault
            finally:
                self._tasks.pop(key, None)
                self._done(news)

        self._tasks[key] = asyncio.create_task(run(), name=key)

    def _note(self, kind: str, subject: str, reason: str, **more: Any) -> None:
        self._book.log.note(workflow.time(), kind, reason, subject=subject, **more)


def _known_ids(workers: Iterable[Worker]) -> tuple[int, ...]:
    """Instances whose absence from a list would be read as news; a destroy that is under way confirms its own end."""
    return tuple(
        worker.instance_id
        for worker in workers
        if worker.instance_id is not None and worker.operation != "destroy"
    )


def _fault(error: ActivityError) -> tuple[str, str]:
    """The error's type, as the activity named it, and what it says."""
    cause = error.cause
    if isinstance(cause, ApplicationError):
        return cause.type or "", cause.message
    return type(cause).__name__, str(cause or error)
