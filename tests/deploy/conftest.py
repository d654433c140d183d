"""The engine of `tests/engine`, for tests of what is deployed around it."""

import pytest
import pytest_asyncio

from tests.dashboard.conftest import stage, temporal

__all__ = ["stage", "temporal"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests share one event loop, because they share one Temporal server."""
    for item in items:
        if "tests/deploy/" in str(item.path) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
