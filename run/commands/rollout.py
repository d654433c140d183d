"""`stokerd rollout`: makes a worker build the current one and moves every workflow to it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from temporalio.api.deployment.v1 import WorkerDeploymentVersion
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.workflowservice.v1 import (
    DescribeWorkerDeploymentRequest,
    DescribeWorkerDeploymentVersionRequest,
    SetWorkerDeploymentCurrentVersionRequest,
)
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from run.errors import CommandError
from run.settings import WorkerChoice
from stoker_wire.control import MARKET_TASK_QUEUE, SWEEP_ID, TASK_QUEUE, UPDATE_CONFIG, WORKFLOW_TYPE
from workflows.sweep.sweep import SweepWorkflow

PAUSE_SECONDS = 0.5
WAKE_SECONDS = 5.0
"""Interval of signals to workflows that have not moved yet."""
_QUEUES = {
    (TASK_QUEUE, TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW),
    (MARKET_TASK_QUEUE, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY),
}
_RUNNING = f"(WorkflowType = '{WORKFLOW_TYPE}' OR WorkflowId = '{SWEEP_ID}') AND ExecutionStatus = 'Running'"


@dataclass(frozen=True, slots=True)
class Rollout:
    """The result of a rollout."""

    before: str
    """The previously current build; empty: there was no current build."""
    moved: tuple[str, ...]
    """Workflows that run on the new build."""
    left: tuple[str, ...]
    """Workflows that still run on another build after the time limit."""


async def roll_out(
    client: Client,
    choice: WorkerChoice,
    *,
    seconds_max: float,
    say: Callable[[str], None],
) -> Rollout:
    """Switch the deployment to the build, signal every workflow, and return when all have moved or time is up.

    Raises:
        CommandError: the settings name no deployment, or no worker of that build polls yet.
    """
    version = choice.version()
    if version is None:
        raise CommandError(
            "worker.deployment is not set: the workers are not versioned, so there is nothing to roll out"
        )
    deadline = asyncio.get_running_loop().time() + seconds_max
    build = WorkerDeploymentVersion(deployment_name=version.deployment_name, build_id=version.build_id)
    await _wait_for_pollers(client, build, deadline)
    before = await _make_current(client, build)
    say(f"{build.deployment_name}: build {before or '(none)'} -> {build.build_id}")
    waiting = {workflow.id async for workflow in client.list_workflows(_RUNNING)}
    moved: set[str] = set()
    woken_at = 0.0
    while waiting:
        now = asyncio.get_running_loop().time()
        if now - woken_at >= WAKE_SECONDS:
            woken_at = now
            await asyncio.gather(*(_wake(client, name) for name in waiting))
        arrived = {name for name in sorted(waiting) if await _is_on(client, name, build)}
        if arrived:
            moved |= arrived
            waiting -= arrived
            say(f"{len(moved)} of {len(moved) + len(waiting)} workflows run on build {build.build_id}")
        if not waiting or now > deadline:
            break
        await asyncio.sleep(PAUSE_SECONDS)
    return Rollout(before, tuple(sorted(moved)), tuple(sorted(waiting)))


async def _wait_for_pollers(client: Client, build: WorkerDeploymentVersion, deadline: float) -> None:
    """Wait until workers of the build poll both task queues; without workers, every workflow would stop."""
    while True:
        queues = set()
        try:
            found = await client.workflow_service.describe_worker_deployment_version(
                DescribeWorkerDeploymentVersionRequest(namespace=client.namespace, deployment_version=build)
            )
            queues = {(queue.name, queue.type) for queue in found.version_task_queues}
        except RPCError as fault:
            if fault.status is not RPCStatusCode.NOT_FOUND:
                raise
        if queues >= _QUEUES:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise CommandError(
                f"no worker of build {build.build_id} of deployment {build.deployment_name} polls; start "
                f"`stokerd worker --build-id {build.build_id}` first",
                exit_code=4,
            )
        await asyncio.sleep(PAUSE_SECONDS)


async def _make_current(client: Client, build: WorkerDeploymentVersion) -> str:
    """Make the build current and return the previously current build."""
    found = await client.workflow_service.describe_worker_deployment(
        DescribeWorkerDeploymentRequest(namespace=client.namespace, deployment_name=build.deployment_name)
    )
    before = found.worker_deployment_info.routing_config.current_deployment_version.build_id
    if before != build.build_id:
        await client.workflow_service.set_worker_deployment_current_version(
            SetWorkerDeploymentCurrentVersionRequest(
                namespace=client.namespace,
                deployment_name=build.deployment_name,
                build_id=build.build_id,
                conflict_token=found.conflict_token,
                identity="stokerd rollout",
            )
        )
    return before


async def _wake(client: Client, name: str) -> None:
    """Send a signal without changes: at its next task, the workflow notices the deployment's new build."""
    handle = client.get_workflow_handle(name)
    try:
        if name == SWEEP_ID:
            await handle.signal(SweepWorkflow.wake, rpc_timeout=timedelta(seconds=5))
        else:
            await handle.signal(UPDATE_CONFIG, {}, rpc_timeout=timedelta(seconds=5))
    except RPCError as fault:
        if fault.status is not RPCStatusCode.NOT_FOUND:
            raise


async def _is_on(client: Client, name: str, build: WorkerDeploymentVersion) -> bool:
    """Whether the workflow runs on the build, or has ended."""
    try:
        described = await client.get_workflow_handle(name).describe()
    except RPCError as fault:
        if fault.status is not RPCStatusCode.NOT_FOUND:
            raise
        return True
    return described.status is not WorkflowExecutionStatus.RUNNING or build_of(described) == build.build_id


def build_of(described: WorkflowExecutionDescription) -> str:
    """The build that completed the run's last task; empty: no task was completed, or it is not versioned."""
    info = described.raw_description.workflow_execution_info.versioning_info
    build: str = info.deployment_version.build_id
    return build
