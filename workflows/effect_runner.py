"""Carries out the controller's effects as activities, each in its own task that reports the result."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from activities import messages
from activities.instances import MarketActivities
from controller import effects
from controller.controller import LIST_LAG_SECONDS, NOTICE_SECONDS, EndpointController
from policy.state.worker import Worker
from policy.state.worker_events import RESTARTS
from stoker_wire.states import WorkerState
from workflows import options


class Effects:
    """Everything that is in flight for one endpoint. `done` is called after each result."""

    def __init__(self, controller: EndpointController, done: Callable[[], None]) -> None:
        self._controller = controller
        self._done = done
        self._name = controller.state.name
        self._endpoint_id = controller.state.id
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._fault: Exception | None = None
        """A fault of this code, for the main loop to raise: in a task it would go unnoticed."""

    def raise_fault(self) -> None:
        """Fails the workflow task with a fault of this code, for an operator to see and a deploy to mend."""
        if self._fault is not None:
            raise self._fault

    def start(self, wanted: Iterable[effects.Effect]) -> None:
        """Start each of them, in this order."""
        for effect in wanted:
            self._tasks[effect.key] = asyncio.create_task(self._run(effect), name=effect.key)

    async def _run(self, effect: effects.Effect) -> None:
        try:
            result = await self._carry_out(effect)
            self._controller.on_result(effect, result, workflow.time())
        except Exception as fault:  # noqa: BLE001 - raised again by the main loop
            self._fault = self._fault or fault
        finally:
            self._tasks.pop(effect.key, None)
            self._done()

    async def _carry_out(self, effect: effects.Effect) -> effects.Result:
        try:
            match effect:
                case effects.SearchOffers():
                    return await self._search(effect)
                case effects.ListInstances():
                    return await self._list(effect)
                case effects.CreateInstance():
                    return await self._create(effect)
                case effects.ChangeInstance():
                    return await self._change(effect)
        except ActivityError as error:
            return _failed(error)

    async def _search(self, effect: effects.SearchOffers) -> effects.FoundOffers:
        asked = messages.SearchOffers(workergroup=effect.workergroup)
        how = options.search_options(effect.workergroup.id)
        return await workflow.execute_activity_method(MarketActivities.search_offers, asked, **how)

    async def _list(self, effect: effects.ListInstances) -> effects.ListedInstances:
        asked = messages.ListInstances(
            prefix=messages.label_prefix(self._name),
            bills_since=effect.bills_since,
            launch_ids=effect.launch_ids,
            known_ids=effect.known_ids,
        )
        return await workflow.execute_activity_method(
            MarketActivities.list_instances, asked, **options.list_options(effect.reason)
        )

    async def _create(self, effect: effects.CreateInstance) -> effects.CreatedInstance:
        if effect.resumed:
            # An attempt of the run before has to end, and its instance to be listed, before it can be adopted.
            seconds = options.TRY_SECONDS_MAX + LIST_LAG_SECONDS + 1
            await workflow.sleep(seconds, summary="the run before may be renting it")
        asked = messages.CreateInstance(
            endpoint_name=self._name,
            endpoint_id=self._endpoint_id,
            launch_id=effect.key,
            workergroup=effect.workergroup,
            offer=effect.offer,
            asked_before=effect.resumed,
            perf_estimate=effect.worker.perf_estimate,
        )
        how = options.create_options(effect.offer)
        return await workflow.execute_activity_method(MarketActivities.create_instance, asked, **how)

    async def _change(self, effect: effects.ChangeInstance) -> effects.Done:
        worker = effect.worker
        if effect.resumed and worker.operation in RESTARTS:
            # An attempt of the run before has to end, or it restarts a worker that serves again.
            await workflow.sleep(options.TRY_SECONDS_MAX + 1, summary="the run before may be restarting it")
        if effect.may_get_requests:
            await self._let_requests_end(worker.launch_id)
        if worker.operation == "destroy":
            await self._destroy(worker)
            return effects.Done(confirmed=worker.instance_id is not None)
        if worker.operation == "update":
            await self._update(effect)
        else:
            await self._ask(worker)
        return effects.Done()

    async def _let_requests_end(self, launch_id: str) -> None:
        """Wait until no engine routes to the worker and it holds no request, at most for the drain deadline."""
        await workflow.sleep(NOTICE_SECONDS, summary="engines stop routing to it")
        if self._controller.holds_requests(launch_id):
            seconds_max = self._controller.state.record.config.drain_seconds_max
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: not self._controller.holds_requests(launch_id),
                    timeout=seconds_max,
                    timeout_summary="it became ready and holds requests",
                )

    async def _ask(self, worker: Worker) -> None:
        activity = {
            "start": MarketActivities.start_instance,
            "stop": MarketActivities.stop_instance,
            "reboot": MarketActivities.reboot_instance,
        }[worker.operation]
        asked, how = messages.OnInstance(instance_id=worker.instance_id or 0), options.worker_options(worker)
        if worker.operation == "start" and await self._start_at_once(asked, how):
            return
        await workflow.execute_activity_method(activity, asked, **how)

    async def _start_at_once(self, asked: messages.OnInstance, how: dict[str, Any]) -> bool:
        """Start it by the workflows' own task queue: a request waits, and Temporal hands such an activity over with its
        answer to the workflow task. False: the process has just started another machine, so this one has to queue."""
        how = how | {"task_queue": workflow.info().task_queue}
        started: bool | None = await workflow.execute_activity_method(
            MarketActivities.start_instance, replace(asked, at_once=True), **how
        )
        return started is not False  # None: an older build started it

    async def _destroy(self, worker: Worker) -> None:
        label = messages.launch_label(self._name, worker.launch_id)
        asked = messages.DestroyInstance(instance_id=worker.instance_id, label=label)
        how = options.destroy_options(options.named(worker))
        await workflow.execute_activity_method(MarketActivities.destroy_instance, asked, **how)

    async def _update(self, effect: effects.ChangeInstance) -> None:
        worker, group = effect.worker, effect.workergroup
        if group is None:
            return  # The planner releases it: its workergroup was removed.
        asked = messages.UpdateInstance(
            endpoint_name=self._name,
            endpoint_id=self._endpoint_id,
            launch_id=worker.launch_id,
            instance_id=worker.instance_id or 0,
            workergroup=group,
            restart=worker.state is WorkerState.UPDATE_REBOOTING,
        )
        how = options.worker_options(worker)
        await workflow.execute_activity_method(MarketActivities.update_instance, asked, **how)


def _failed(error: ActivityError) -> effects.Failed:
    """The error's type, as the activity named it, and what it says."""
    cause = error.cause
    if isinstance(cause, ApplicationError):
        return effects.Failed(kind=cause.type or "", text=cause.message)
    return effects.Failed(kind=type(cause).__name__, text=str(cause or error))
