import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from tests.workflows.world import World, make_market, make_workers
from workflows.messages import SEARCH_ATTRIBUTES

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
        test_server_existing_path=str(_BIN / "temporal-test-server"), data_converter=pydantic_data_converter
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
    async def make(*, market: dict[str, Any] | None = None, **how: Any) -> AsyncIterator[World]:
        world = World(skipping, skipping.client, None, **how)  # type: ignore[arg-type]
        world.market = make_market(world.clock, **(market or {}))
        async with AsyncExitStack() as stack:
            for worker in make_workers(skipping.client, world.market):
                await stack.enter_async_context(worker)
            yield world

    return make
