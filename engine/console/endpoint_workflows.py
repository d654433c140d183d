"""The console's operations on endpoint workflows: start, update, query, delete, and reading changes back."""

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
from engine.api.problems import no_temporal_worker, temporal_unavailable
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
from stoker_wire.errors.problem import Problem
from stoker_wire.messages import MEMO_KEY, EndpointMemo

log = structlog.get_logger("engine.console")

_RPC = timedelta(seconds=5)
MEMO_SECONDS_MAX = 2.0
"""How long the console waits until the memo shows a change; normally some tens of milliseconds."""
_MEMO_POLL_SECONDS = 0.02
RELEASE_SECONDS_MAX = 12.0
"""How long the console waits for a forced delete. Its workflow continues in any case."""
_PROMPT_SECONDS = 1.0
"""After this time without an answer the console checks whether any Temporal worker polls."""
_POLL_SECONDS_MAX = 75.0
"""Workers poll at least once a minute. The server lists a poller for five minutes after its last poll."""
_SILENT_SECONDS_MIN = 3.0
"""Temporal counts as silent after this time without an answer. It is polled every second."""
_CLOSED_POLL_SECONDS = 0.25


class EndpointExistsError(Exception):
    """A live endpoint has this name."""


class EndpointWorkflows:
    """Calls of the endpoints' workflows."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._client = engine.client
        self._timeout_seconds = engine.settings.timing.temporal_call_seconds

    async def start(self, name: str, config: EndpointConfig, owner: str) -> int:
        """Start an endpoint and return its id. This engine knows it at once; others find it with their next poll.

        Raises:
            EndpointExistsError: a live endpoint has this name.
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
            created_at=now,  # changed_at stays 0, so every memo of the workflow is newer despite clock skew
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
            raise EndpointExistsError(name) from None
        self._engine.directory.apply(memo, now)
        log.info("endpoint_created", endpoint=name, endpoint_id=spec.endpoint_id, owner=owner)
        return spec.endpoint_id

    async def update(self, endpoint: Endpoint, name: str, *args: Any) -> Any:
        """Run a workflow update.

        Raises:
            WorkflowUpdateFailedError: the validator refused the change.
            Problem: 503, no Temporal worker handles it.
        """
        return await self._with_deadline(self._handle(endpoint).execute_update(name, args=list(args)))

    async def signal(self, endpoint: Endpoint, signal: str, *args: Any) -> None:
        """Send a signal to the workflow."""
        await self._handle(endpoint).signal(signal, args=list(args), rpc_timeout=_RPC)

    async def query(self, endpoint: Endpoint, name: str, *args: Any) -> Any:
        """Run a workflow query; the result is JSON values.

        Raises:
            Problem: 503, no Temporal worker answers it.
        """
        return await self._with_deadline(self._handle(endpoint).query(name, args=list(args)))

    async def _with_deadline(self, call: Awaitable[Any]) -> Any:
        """Wait for a Temporal worker's answer; fails early if no worker polls.

        Raises:
            Problem: 503, no Temporal worker answered in time, or Temporal itself did not.
        """
        answering = asyncio.ensure_future(call)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                done, _ = await asyncio.wait({answering}, timeout=_PROMPT_SECONDS)
                if not done and not await self._has_poller():
                    raise no_temporal_worker()
                return await answering
        except (TimeoutError, RPCTimeoutOrCancelledError):
            silent = self._engine.endpoint_watcher.silent_seconds()
            if silent >= max(self._timeout_seconds, _SILENT_SECONDS_MIN):
                raise temporal_unavailable(f"no answer for {silent:.0f} s") from None
            raise no_temporal_worker(self._timeout_seconds) from None
        finally:
            answering.cancel()

    async def _has_poller(self) -> bool:
        """Whether a Temporal worker polled for workflow tasks recently; True if Temporal does not answer."""
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
        """Signal the deletion. Returns why it has not begun yet; empty: it has begun."""
        await self.signal(endpoint, DELETE)
        endpoint.deletion_sent = True
        end_held_calls(endpoint)
        await self.wait_until_in_memo(endpoint, lambda e: e.gone or e.memo.deleting)
        if endpoint.gone or endpoint.memo.deleting:
            log.info("endpoint_deleted", endpoint=endpoint.name, endpoint_id=endpoint.id)
            return ""
        found = await progress_of(self._client, endpoint.workflow_id)
        fault = found.fault or f"no Temporal worker has handled it within {MEMO_SECONDS_MAX:.0f} s"
        log.warning("delete_not_started", endpoint=endpoint.name, reason=fault)
        return fault

    async def release(self, endpoint: Endpoint) -> Released | None:
        """Terminate the endpoint's workflow and destroy all instances with its label; None: still in progress.

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
            raise Problem(503, "release_failed", f"{handle.id} failed: {fault.cause}") from None
        if not released.ended:
            raise Problem(503, "not_released", f"nothing was changed: {released.fault}; try again")
        await self.wait_until_in_memo(endpoint, lambda e: e.gone)
        log.warning(
            "endpoint_released",
            endpoint=endpoint.name,
            destroyed=len(released.destroyed),
            left=len(released.left),
        )
        return released

    async def wait_until_closed(self, endpoint_name: str, seconds_max: float) -> bool:
        """Wait until no live workflow has the name; False: one still has it after this time."""
        until = time.monotonic() + seconds_max
        while await self._engine.endpoint_watcher.refresh(endpoint_name):
            if time.monotonic() > until:
                return False
            await asyncio.sleep(_CLOSED_POLL_SECONDS)
        return True

    async def wait_until_in_memo(self, endpoint: Endpoint, changed: Callable[[Endpoint], bool]) -> None:
        """Refresh the endpoint until its memo shows the change, so that callers see it; at most `MEMO_SECONDS_MAX`."""
        until = time.monotonic() + MEMO_SECONDS_MAX
        while True:
            there = await self._engine.endpoint_watcher.refresh(endpoint.name)
            if changed(endpoint) or not there or time.monotonic() > until:
                return
            await asyncio.sleep(_MEMO_POLL_SECONDS)

    def _handle(self, endpoint: Endpoint) -> WorkflowHandle[Any, Any]:
        return self._client.get_workflow_handle(endpoint.workflow_id)


def new_id() -> int:
    """A random id of an endpoint or workergroup; random ids need no agreement between engines."""
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
