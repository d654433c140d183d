"""What the console asks of endpoint workflows: start, change, query, delete; and reading back what was written."""

import asyncio
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from temporalio.client import WorkflowHandle
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError

from engine.endpoints import Endpoint
from engine.engine import Engine
from stoker_wire.control import DELETE, TASK_QUEUE, WORKFLOW_TYPE, EndpointSpec, workflow_id
from stoker_wire.endpoint import EndpointConfig
from workflows.messages import MEMO_KEY, EndpointMemo

log = structlog.get_logger("engine.console")

_RPC = timedelta(seconds=5)
SEEN_SECONDS_MAX = 2.0
"""How long a change is waited for in the memo; it takes some tens of milliseconds."""
_LOOK_AGAIN_SECONDS = 0.02


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
        """Run an update; its validator's no is a WorkflowUpdateFailedError."""
        async with asyncio.timeout(self._patience):
            return await self._handle(endpoint).execute_update(update, args=list(args))

    async def signal(self, endpoint: Endpoint, signal: str, *args: Any) -> None:
        """Send a signal."""
        await self._handle(endpoint).signal(signal, args=list(args), rpc_timeout=_RPC)

    async def ask(self, endpoint: Endpoint, query: str, *args: Any) -> Any:
        """Ask a query; the answer is plain JSON values."""
        async with asyncio.timeout(self._patience):
            return await self._handle(endpoint).query(query, args=list(args))

    async def delete(self, endpoint: Endpoint) -> None:
        """Have every worker destroyed, then the workflow end."""
        await self.signal(endpoint, DELETE)
        await self.seen(endpoint, lambda e: e.gone or e.memo.deleting)
        log.info("endpoint_deleted", endpoint=endpoint.name, endpoint_id=endpoint.id)

    async def seen(self, endpoint: Endpoint, changed: Callable[[Endpoint], bool]) -> None:
        """Read the endpoint's memo back until it shows the change, for a bounded time: a caller reads what it wrote."""
        until = time.monotonic() + SEEN_SECONDS_MAX
        while True:
            there = await self._engine.watch.refresh(endpoint.name)
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
