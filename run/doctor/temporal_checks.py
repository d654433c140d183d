"""Temporal: its address, namespace, search attributes, clock, and the workers that poll its task queues."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import timedelta

from temporalio.api.enums.v1 import TaskQueueKind, TaskQueueType
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.taskqueue.v1 import PollerInfo, TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, PollWorkflowTaskQueueRequest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from run.errors import CommandError
from run.processes.temporal_server import SEARCH_ATTRIBUTE_TYPES, Target, connect_to, temporal_target
from run.settings import DeploymentSettings
from stoker.cli.overview.doctor import clock_finding
from stoker.cli.overview.findings import Finding, found
from stoker_wire.control import MARKET_TASK_QUEUE, SWEEP_ID, TASK_QUEUE
from stoker_wire.messages import SEARCH_ATTRIBUTES

REMEDY = "start the server (`stokerd dev`, or your cluster), or correct the `temporal:` settings or TEMPORAL_ADDRESS"
_SEEN_SECONDS_MAX = 3.0
"""How long to wait until the server has seen the poll."""
_POLL = timedelta(seconds=60)
"""The server logs a warning about shorter polls. The doctor cancels it."""
_WORKFLOW = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
_QUEUES = (
    ("workflows", TASK_QUEUE, _WORKFLOW),
    ("the planner", TASK_QUEUE, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY),
    ("marketplace calls", MARKET_TASK_QUEUE, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY),
)


async def check_temporal(settings: DeploymentSettings) -> AsyncIterator[Finding]:
    """Findings in the order in which they depend on each other."""
    try:
        target = temporal_target(settings.temporal)
        client = await connect_to(target, wait_seconds_max=0.0)
    except CommandError as fault:
        yield Finding("Temporal", "failed", str(fault), REMEDY)
        return
    yield Finding("Temporal", "ok", f"answers {target}")
    yield await _search_attributes(client, target)
    yield await _clock(client)
    async for finding in _pollers(client, settings):
        yield finding
    yield await _sweep(client)


async def _search_attributes(client: Client, target: Target) -> Finding:
    """By the list of the namespace; where that is not permitted (Temporal Cloud), by a query with each attribute."""
    try:
        listed = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace)
        )
        missing = [
            name
            for name, kind in SEARCH_ATTRIBUTES.items()
            if listed.custom_attributes.get(name) != SEARCH_ATTRIBUTE_TYPES[kind]
        ]
    except RPCError as fault:
        if fault.status not in {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED}:
            raise
        known = await asyncio.gather(*(_can_query(client, name) for name in SEARCH_ATTRIBUTES))
        missing = [name for name, exists in zip(SEARCH_ATTRIBUTES, known, strict=True) if not exists]
    flags = " ".join(f"--name {name} --type {SEARCH_ATTRIBUTES[name]}" for name in missing)
    return found(
        "search attributes",
        f"missing, or of another type: {', '.join(missing)}" if missing else "",
        f"all {len(SEARCH_ATTRIBUTES)} are registered",
        f"temporal operator search-attribute create --address {target.address} --namespace {target.namespace} {flags}",
    )


async def _can_query(client: Client, name: str) -> bool:
    try:
        await client.count_workflows(f"{name} IS NULL")
    except RPCError as fault:
        if fault.status is not RPCStatusCode.INVALID_ARGUMENT:
            raise
        return False
    return True


async def _clock(client: Client) -> Finding:
    """The server's time, from the moment at which it saw a poll of a task queue of the doctor's own.

    No call answers the time. A sticky queue is deleted by the server after a day.
    """
    queue = TaskQueue(
        name=f"stoker-doctor-{client.identity}",
        kind=TaskQueueKind.TASK_QUEUE_KIND_STICKY,
        normal_name=TASK_QUEUE,
    )
    before = time.time()
    poll = asyncio.create_task(_poll(client, queue))
    try:
        async with asyncio.timeout(_SEEN_SECONDS_MAX):
            while not (seen := await _pollers_of(client, queue, _WORKFLOW)):  # noqa: ASYNC110 - a remote server
                await asyncio.sleep(0.05)
    except (TimeoutError, RPCError):
        seen = []
    finally:
        poll.cancel()
        await asyncio.gather(poll, return_exceptions=True)
    at = seen[0].last_access_time.ToNanoseconds() / 1e9 if seen else None
    return clock_finding("clock of Temporal", "its clock", at, before, time.time())


async def _poll(client: Client, queue: TaskQueue) -> None:
    request = PollWorkflowTaskQueueRequest(
        namespace=client.namespace, task_queue=queue, identity=client.identity
    )
    with contextlib.suppress(RPCError):
        await client.workflow_service.poll_workflow_task_queue(request, timeout=_POLL)


async def _pollers(client: Client, settings: DeploymentSettings) -> AsyncIterator[Finding]:
    """Whether workers poll for each kind of task, and whether they run the build of the settings."""
    choice = settings.worker
    for what, name, kind in _QUEUES:
        seen = await _pollers_of(client, TaskQueue(name=name), kind)
        check = f"Temporal worker for {what}"
        if not seen:
            fault = f"nothing polls the task queue {name!r} for {what}"
            yield Finding(
                check, "failed", fault, "start `stokerd worker` with these settings, or `stokerd dev`"
            )
            continue
        builds = sorted({poller.deployment_options.build_id or "unversioned" for poller in seen})
        text = f"{len(seen)} of build {', '.join(builds)}" if choice.deployment else f"{len(seen)} poll"
        wanted = choice.build_id
        differs = choice.deployment is not None and wanted is not None and wanted not in builds
        yield found(
            check,
            f"{text}; none of build {wanted}, which the settings name" if differs else "",
            text,
            f"start `stokerd worker --build-id {wanted}`, then `stokerd rollout --build-id {wanted}`",
        )


async def _pollers_of(client: Client, queue: TaskQueue, kind: TaskQueueType.ValueType) -> list[PollerInfo]:
    answer = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(namespace=client.namespace, task_queue=queue, task_queue_type=kind)
    )
    return list(answer.pollers)


async def _sweep(client: Client) -> Finding:
    remedy = "a running Temporal worker or engine starts it again within sweep.ensure_seconds"
    try:
        status = (await client.get_workflow_handle(SWEEP_ID).describe()).status
    except RPCError as fault:
        if fault.status is not RPCStatusCode.NOT_FOUND:
            raise
        status = None
    running = status is WorkflowExecutionStatus.RUNNING
    fault_text = "does not run: instances without an endpoint stay rented"
    return found("sweep", "" if running else fault_text, "runs", remedy)
