import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.common import SearchAttributeKey
from temporalio.testing import WorkflowEnvironment

from market.ownership import DeploymentMarket
from stoker_wire.messages import SEARCH_ATTRIBUTES
from tests.workflows.world import World, make_market, make_workers
from workflows.publish import (
    DOLLARS_PER_HOUR,
    ENDPOINT_ID,
    ENDPOINT_NAME,
    ENDPOINT_STATE,
    FLEET_CHANGED_AT,
    READY_WORKERS,
    TOTAL_WORKERS,
)
from workflows.temporal_worker.converter import data_converter
from workflows.temporal_worker.metrics import TemporalWorkerMetrics

_BIN = Path(sys.executable).parent
_TYPES = {
    "Keyword": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "Int": IndexedValueType.INDEXED_VALUE_TYPE_INT,
    "Double": IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE,
    "Datetime": IndexedValueType.INDEXED_VALUE_TYPE_DATETIME,
}


@pytest.fixture
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    """A test server whose time passes as fast as its workflows allow."""
    env = await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(_BIN / "temporal-test-server"), data_converter=data_converter
    )
    async with env:
        await env.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(
                search_attributes={name: _TYPES[kind] for name, kind in SEARCH_ATTRIBUTES.items()},
                namespace="default",
            )
        )
        yield env


@pytest.fixture
def a_world(skipping: WorkflowEnvironment) -> Any:
    """Makes a world, with its Temporal workers running while it is open."""

    @asynccontextmanager
    async def make(
        *,
        market: dict[str, Any] | None = None,
        deployment: str | None = None,
        metrics: TemporalWorkerMetrics | None = None,
        **how: Any,
    ) -> AsyncIterator[World]:
        world = World(skipping, skipping.client, None, **how)  # type: ignore[arg-type]
        world.market = make_market(world.clock, **(market or {}))
        async with AsyncExitStack() as stack:
            seen = DeploymentMarket(world.market, deployment) if deployment else world.market
            for worker in make_workers(skipping.client, seen, metrics):
                await stack.enter_async_context(worker)
            yield world

    return make


@pytest.fixture
async def server() -> AsyncIterator[WorkflowEnvironment]:
    """A real Temporal dev server, in memory, on a free port."""
    keys: list[SearchAttributeKey[Any]] = [
        ENDPOINT_NAME,
        ENDPOINT_ID,
        ENDPOINT_STATE,
        READY_WORKERS,
        TOTAL_WORKERS,
        DOLLARS_PER_HOUR,
        FLEET_CHANGED_AT,
    ]
    assert {key.name for key in keys} == set(SEARCH_ATTRIBUTES)
    env = await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(_BIN / "temporal"),
        search_attributes=keys,
        data_converter=data_converter,
    )
    async with env:
        yield env


@pytest.fixture
def real_world(server: WorkflowEnvironment) -> Any:
    """A world on the real server, in real time: machines boot at once."""

    @asynccontextmanager
    async def make(**how: Any) -> AsyncIterator[World]:
        world = World(server, server.client, None, model_seconds=0.0, **how)  # type: ignore[arg-type]
        world.market = make_market(world.clock, pull_seconds=0.0, start_seconds=0.0)
        async with AsyncExitStack() as stack:
            for worker in make_workers(server.client, world.market):
                await stack.enter_async_context(worker)
            yield world

    return make
