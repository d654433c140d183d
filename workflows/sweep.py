"""A deployment-wide look for instances whose endpoint does not exist any more: money that nobody watches."""

import asyncio
import contextlib
from dataclasses import dataclass, field

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ActivityError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities.instances import MarketActivities
from activities.messages import LABEL_PREFIX, DestroyInstance, ListInstances, read_label
from stoker_wire.control import MARKET_TASK_QUEUE, TASK_QUEUE, workflow_id
from stoker_wire.market import Instance
from workflows import options

SWEEP_ID = "stoker-sweep"
ENDPOINTS_PER_QUESTION = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """How often to look, and whom to leave alone."""

    every_seconds: float = 900.0
    young_seconds: float = 600.0
    """An instance younger than this is left alone: its endpoint may just be starting."""
    rounds: int = 0
    """Sweeps made so far by earlier runs."""
    destroyed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointNames:
    """Names of endpoints: asked about, or found running."""

    names: tuple[str, ...] = field(default=())


class SweepActivities:
    """What the sweep asks of Temporal itself."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @activity.defn
    async def endpoints_running(self, asked: EndpointNames) -> EndpointNames:
        """Which of these endpoints have a running workflow. Asked one by one: a list may lag, this does not."""
        running = []
        for name in asked.names:
            try:
                found = await self._client.get_workflow_handle(workflow_id(name)).describe()
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
                continue
            if found.status is WorkflowExecutionStatus.RUNNING:
                running.append(name)
        return EndpointNames(names=tuple(running))


@workflow.defn
class SweepWorkflow:
    """Looks, destroys what is nobody's, and waits; one per deployment, for ever."""

    @workflow.init
    def __init__(self, spec: SweepSpec) -> None:
        self._rounds = spec.rounds
        self._destroyed = spec.destroyed

    @workflow.run
    async def run(self, spec: SweepSpec) -> None:
        """Never ends by itself; starts anew when its history is long."""
        while not workflow.info().is_continue_as_new_suggested() and not self._should_move():
            try:
                await self._sweep(spec)
            except ActivityError as error:
                workflow.logger.warning("sweep_failed", extra={"reason": str(error.cause or error)})
            self._rounds += 1
            workflow.set_current_details(
                f"{self._rounds} sweeps, {self._destroyed} instances destroyed whose endpoint was gone"
            )
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    self._should_move, timeout=spec.every_seconds, timeout_summary="until the next sweep"
                )
        workflow.continue_as_new(
            SweepSpec(
                every_seconds=spec.every_seconds,
                young_seconds=spec.young_seconds,
                rounds=self._rounds,
                destroyed=self._destroyed,
            ),
            initial_versioning_behavior=workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE
            if self._should_move()
            else None,
        )

    @workflow.signal(description="look whether the workers have another build")
    def wake(self) -> None:
        """It does on every signal."""

    @staticmethod
    def _should_move() -> bool:
        return workflow.info().is_target_worker_deployment_version_changed()

    @workflow.query
    def destroyed(self) -> int:
        """How many instances it has destroyed."""
        return self._destroyed

    async def _sweep(self, spec: SweepSpec) -> None:
        listed = await workflow.execute_activity_method(
            MarketActivities.list_instances,
            ListInstances(prefix=LABEL_PREFIX),
            task_queue=MARKET_TASK_QUEUE,
            **options.list_options("sweep"),
        )
        now = workflow.time()
        by_name: dict[str, list[Instance]] = {}
        for instance in listed.instances:
            label = read_label(instance.label)
            if label is not None and now - (instance.start_date or 0.0) > spec.young_seconds:
                by_name.setdefault(label[0], []).append(instance)
        names = tuple(by_name)
        for start in range(0, len(names), ENDPOINTS_PER_QUESTION):
            asked = EndpointNames(names=names[start : start + ENDPOINTS_PER_QUESTION])
            found = await workflow.execute_activity_method(
                SweepActivities.endpoints_running, asked, **options.ask_options()
            )
            gone = [name for name in asked.names if name not in found.names]
            await asyncio.gather(*(self._destroy(i) for name in gone for i in by_name[name]))

    async def _destroy(self, instance: Instance) -> None:
        try:
            await workflow.execute_activity_method(
                MarketActivities.destroy_instance,
                DestroyInstance(instance_id=instance.id),
                task_queue=MARKET_TASK_QUEUE,
                **options.destroy_options(f"instance {instance.id}, its endpoint is gone"),
            )
        except ActivityError as error:
            workflow.logger.warning(
                "orphan_not_destroyed",
                extra={"instance_id": instance.id, "reason": str(error.cause or error)},
            )
        else:
            self._destroyed += 1


async def ensure_sweep(client: Client, spec: SweepSpec | None = None) -> None:
    """Starts the sweep unless it runs already."""
    try:
        await client.start_workflow(
            SweepWorkflow.run,
            spec or SweepSpec(),
            id=SWEEP_ID,
            task_queue=TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary="destroys instances whose endpoint does not exist any more",
        )
    except WorkflowAlreadyStartedError:
        return
