"""What the console asks of endpoint workflows: start, change, query, delete; and reading back what was written."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import RPCTimeoutOrCancelledError, WorkflowFailureError, WorkflowHandle
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError

from activities.progress import progress_of
from engine.api.problems import no_temporal_worker
from engine.engine import Engine
from engine.routing.directory import end_held_calls
from engine.routing.endpoint import Endpoint
from engine.temporal.rpc_errors import TEMPORAL_FAULTS, rpc_error_text
from stoker_wire.control import (
    DELETE,
    RELEASE_WORKFLOW_TYPE,
    TASK_QUEUE,
    WORKFLOW_TYPE,
    EndpointSpec,
    Release,
    Released,
    release_id,
    workflow_id,
)
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.messages import MEMO_KEY, EndpointMemo
from stoker_wire.problem import Problem

log = structlog.get_logger("engine.console")

_RPC = timedelta(seconds=5)
SEEN_SECONDS_MAX = 2.0
"""How long a change is waited for in the memo; it takes some tens of milliseconds."""
_LOOK_AGAIN_SECONDS = 0.02
RELEASE_SECONDS_MAX = 12.0
"""How long a forced delete is waited for. Its workflow goes on by itself."""
_PROMPT_SECONDS = 1.0
"""A call that takes longer may have no worker: the pollers are looked at."""
_POLL_SECONDS_MAX = 75.0
"""A worker asks for tasks once a minute at least. The server shows pollers for five minutes after their last question."""
_CLOSED_LOOK_SECONDS = 0.25


class AlreadyThere(Exception):
    """A live endpoint has this name."""


class EndpointWorkflows:
    """The endpoints' workflows, by endpoint."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._client = engine.client
        self._patience = engine.settings.timing.temporal_call_seconds

    async def start(self, name: str, config: EndpointConfig, owner: str) -> int:
        """Start an endpoint; it is known to this engine, and visible to others, at once.

        Raises:
            AlreadyThere: a live endpoint has this name.
        """
        now = time.time()
        spec = EndpointSpec(
            endpoint_name=name, endpoint_id=new_id(), config=config, created_at=now, owner=owner
        )
        memo = EndpointMemo(
            id=spec.endpoint_id,
            name=name,
            owner=owner,
            config=config.model_dump(mode="json", exclude_defaults=True),
            created_at=now,  # changed_at stays 0: any word of the workflow is newer, whatever this engine's clock says
        )
        try:
            await self._client.start_workflow(
                WORKFLOW_TYPE,
                spec,
                id=workflow_id(name),
                task_queue=TASK_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                memo={MEMO_KEY: memo.model_dump(mode="json")},
                search_attributes=_attributes(memo, config, now),
                static_summary=f"endpoint {name} of {owner}"[:200],
                rpc_timeout=_RPC,
            )
        except WorkflowAlreadyStartedError:
            raise AlreadyThere(name) from None
        self._engine.directory.apply(memo, now)
        log.info("endpoint_created", endpoint=name, endpoint_id=spec.endpoint_id, owner=owner)
        return spec.endpoint_id

    async def change(self, endpoint: Endpoint, update: str, *args: Any) -> Any:
        """Run an update; its validator's no is a WorkflowUpdateFailedError.

        Raises:
            Problem: 503, no Temporal worker takes it up.
        """
        return await self._answered(self._handle(endpoint).execute_update(update, args=list(args)))

    async def signal(self, endpoint: Endpoint, signal: str, *args: Any) -> None:
        """Send a signal."""
        await self._handle(endpoint).signal(signal, args=list(args), rpc_timeout=_RPC)

    async def ask(self, endpoint: Endpoint, query: str, *args: Any) -> Any:
        """Ask a query; the answer is plain JSON values.

        Raises:
            Problem: 503, no Temporal worker answers it.
        """
        return await self._answered(self._handle(endpoint).query(query, args=list(args)))

    async def _answered(self, call: Awaitable[Any]) -> Any:
        """The answer of a Temporal worker, within a bounded time; without any worker, this is rpc_error_text early."""
        answering = asyncio.ensure_future(call)
        try:
            async with asyncio.timeout(self._patience):
                done, _ = await asyncio.wait({answering}, timeout=_PROMPT_SECONDS)
                if not done and not await self._a_worker_polls():
                    raise no_temporal_worker()
                return await answering
        except (TimeoutError, RPCTimeoutOrCancelledError):
            raise no_temporal_worker(self._patience) from None
        finally:
            answering.cancel()

    async def _a_worker_polls(self) -> bool:
        """Whether a Temporal worker polled for workflow tasks lately; True if Temporal does not say."""
        asked = DescribeTaskQueueRequest(
            namespace=self._client.namespace,
            task_queue=TaskQueue(name=TASK_QUEUE),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        try:
            found = await self._client.workflow_service.describe_task_queue(asked, timeout=_RPC)
        except TEMPORAL_FAULTS as fault:
            log.warning("task_queue_not_described", error=rpc_error_text(fault))
            return True
        newest = max((poller.last_access_time.ToSeconds() for poller in found.pollers), default=0)
        return time.time() - newest < _POLL_SECONDS_MAX

    async def delete(self, endpoint: Endpoint) -> str:
        """Have every worker destroyed, then the workflow end. Answers why nothing has begun yet; empty: it has."""
        await self.signal(endpoint, DELETE)
        endpoint.deletion_sent = True
        end_held_calls(endpoint)
        await self.seen(endpoint, lambda e: e.gone or e.memo.deleting)
        if endpoint.gone or endpoint.memo.deleting:
            log.info("endpoint_deleted", endpoint=endpoint.name, endpoint_id=endpoint.id)
            return ""
        found = await progress_of(self._client, endpoint.workflow_id)
        fault = found.fault or f"no Temporal worker has taken it up within {SEEN_SECONDS_MAX:.0f} s"
        log.warning("delete_not_taken_up", endpoint=endpoint.name, reason=fault)
        return fault

    async def release(self, endpoint: Endpoint) -> Released | None:
        """Terminate the endpoint's workflow and destroy what carries its label. None: it is still under way.

        Raises:
            Problem: 503, nothing was changed.
        """
        handle = await self._client.start_workflow(
            RELEASE_WORKFLOW_TYPE,
            Release(endpoint_name=endpoint.name, reason=f"a forced delete by account {endpoint.memo.owner}"),
            id=release_id(endpoint.name),
            task_queue=TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            result_type=Released,
            rpc_timeout=_RPC,
        )
        try:
            async with asyncio.timeout(RELEASE_SECONDS_MAX):
                released: Released = await handle.result()
        except TimeoutError:
            return None
        except WorkflowFailureError as fault:
            raise Problem(503, "release_failed", f"{handle.id} ended early: {fault.cause}") from None
        if not released.ended:
            raise Problem(503, "not_released", f"nothing was changed: {released.fault}; try again")
        await self.seen(endpoint, lambda e: e.gone)
        log.warning(
            "endpoint_released",
            endpoint=endpoint.name,
            destroyed=len(released.destroyed),
            left=len(released.left),
        )
        return released

    async def closed(self, endpoint_name: str, seconds_max: float) -> bool:
        """Wait until no live workflow has the name; False: one still has after this time."""
        until = time.monotonic() + seconds_max
        while await self._engine.endpoint_watcher.refresh(endpoint_name):
            if time.monotonic() > until:
                return False
            await asyncio.sleep(_CLOSED_LOOK_SECONDS)
        return True

    async def seen(self, endpoint: Endpoint, changed: Callable[[Endpoint], bool]) -> None:
        """Read the endpoint's memo back until it shows the change, for a bounded time: a caller reads what it wrote."""
        until = time.monotonic() + SEEN_SECONDS_MAX
        while True:
            there = await self._engine.endpoint_watcher.refresh(endpoint.name)
            if changed(endpoint) or not there or time.monotonic() > until:
                return
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    def _handle(self, endpoint: Endpoint) -> WorkflowHandle[Any, Any]:
        return self._client.get_workflow_handle(endpoint.workflow_id)


def new_id() -> int:
    """An endpoint's or workergroup's id: drawn, so that no two engines have to agree on it."""
    return secrets.randbelow(2**31 - 1) + 1


def _attributes(memo: EndpointMemo, config: EndpointConfig, now: float) -> TypedSearchAttributes:
    return TypedSearchAttributes(
        [
            SearchAttributePair(SearchAttributeKey.for_keyword("EndpointName"), memo.name),
            SearchAttributePair(SearchAttributeKey.for_int("EndpointId"), memo.id),
            SearchAttributePair(SearchAttributeKey.for_keyword("EndpointState"), config.endpoint_state.value),
            SearchAttributePair(SearchAttributeKey.for_int("ReadyWorkers"), 0),
            SearchAttributePair(SearchAttributeKey.for_int("TotalWorkers"), 0),
            SearchAttributePair(SearchAttributeKey.for_float("DollarsPerHour"), 0.0),
            SearchAttributePair(
                SearchAttributeKey.for_datetime("FleetChangedAt"),
                datetime.fromtimestamp(now, UTC),
            ),
        ]
    )
