"""A deployment-wide look for instances whose endpoint does not exist any more: money that nobody watches."""

import asyncio
import contextlib
from collections.abc import Iterable
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
_QUESTIONS_AT_ONCE = 8
_IN_ONE = "orphans are found by one activity"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class FindOrphans:
    """Which instances belong to no running endpoint?"""

    now: float
    young_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphans:
    """Instances whose endpoint does not run. The whole list of a large deployment would be too long for a history."""

    instance_ids: tuple[int, ...] = ()


class SweepActivities:
    """What the sweep asks of Temporal and of the marketplace."""

    def __init__(self, client: Client, market: MarketActivities) -> None:
        self._client = client
        self._market = market

    @activity.defn
    async def find_orphans(self, asked: FindOrphans) -> Orphans:
        """Labelled instances that are not young and whose endpoint has no running workflow."""
        listed = await self._market.list_instances(ListInstances(prefix=LABEL_PREFIX))
        by_name = _by_endpoint(listed.instances, asked.now - asked.young_seconds)
        running = await self._running(tuple(by_name))
        gone = [instance for name in by_name if name not in running for instance in by_name[name]]
        return Orphans(instance_ids=tuple(instance.id for instance in gone))

    @activity.defn
    async def endpoints_running(self, asked: EndpointNames) -> EndpointNames:
        """Which of these endpoints have a running workflow. Asked one by one: a list may lag, this does not."""
        running = await self._running(asked.names)
        return EndpointNames(names=tuple(name for name in asked.names if name in running))

    async def _running(self, names: Iterable[str]) -> set[str]:
        turn = asyncio.Semaphore(_QUESTIONS_AT_ONCE)

        async def runs(name: str) -> bool:
            async with turn:
                try:
                    found = await self._client.get_workflow_handle(workflow_id(name)).describe()
                except RPCError as error:
                    if error.status is not RPCStatusCode.NOT_FOUND:
                        raise
                    return False
                return found.status is WorkflowExecutionStatus.RUNNING

        asked = tuple(names)
        answers = await asyncio.gather(*map(runs, asked))
        return {name for name, answer in zip(asked, answers, strict=True) if answer}


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
        if not workflow.patched(_IN_ONE):
            await self._sweep_by_list(spec)
            return
        found = await workflow.execute_activity_method(
            SweepActivities.find_orphans,
            FindOrphans(now=workflow.time(), young_seconds=spec.young_seconds),
            **options.sweep_options(),
        )
        await asyncio.gather(*(self._destroy(instance_id) for instance_id in found.instance_ids))

    async def _sweep_by_list(self, spec: SweepSpec) -> None:
        """As sweeps that began before did it: the whole list went through the history."""
        listed = await workflow.execute_activity_method(
            MarketActivities.list_instances,
            ListInstances(prefix=LABEL_PREFIX),
            **options.list_options("sweep"),
        )
        by_name = _by_endpoint(listed.instances, workflow.time() - spec.young_seconds)
        names = tuple(by_name)
        for start in range(0, len(names), ENDPOINTS_PER_QUESTION):
            asked = EndpointNames(names=names[start : start + ENDPOINTS_PER_QUESTION])
            found = await workflow.execute_activity_method(
                SweepActivities.endpoints_running, asked, **options.ask_options()
            )
            gone = [name for name in asked.names if name not in found.names]
            await asyncio.gather(*(self._destroy(i.id) for name in gone for i in by_name[name]))

    async def _destroy(self, instance_id: int) -> None:
        try:
            await workflow.execute_activity_method(
                MarketActivities.destroy_instance,
                DestroyInstance(instance_id=instance_id),
                task_queue=MARKET_TASK_QUEUE,
                **options.destroy_options(f"instance {instance_id}, its endpoint is gone"),
            )
        except ActivityError as error:
            workflow.logger.warning(
                "orphan_not_destroyed",
                extra={"instance_id": instance_id, "reason": str(error.cause or error)},
            )
        else:
            self._destroyed += 1


def _by_endpoint(instances: Iterable[Instance], started_before: float) -> dict[str, list[Instance]]:
    """Ours and old enough, by the endpoint's name in their labels."""
    by_name: dict[str, list[Instance]] = {}
    for instance in instances:
        label = read_label(instance.label)
        if label is not None and (instance.start_date or 0.0) < started_before:
            by_name.setdefault(label[0], []).append(instance)
    return by_name


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
