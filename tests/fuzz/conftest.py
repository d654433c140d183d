"""The same tests in two sizes: `make test` runs a few dozen fixed examples, `make test-long` thousands of random
ones."""

import pytest

from tests.workflows.conftest import a_world, skipping


def pytest_configure(config: pytest.Config) -> None:
    """`-m long` selects the long size."""
    from tests.fuzz import size

    size.LONG = config.getoption("markexpr") == "long"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In the long size, every test here has the mark `long`."""
    if config.getoption("markexpr") == "long":
        for item in items:
            if "tests/fuzz/" in str(item.path):
                item.add_marker(pytest.mark.long)


__all__ = ["a_world", "skipping"]
