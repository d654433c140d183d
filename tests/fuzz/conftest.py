"""The same tests in two sizes: `make test` runs some tens of examples, always the same; `make test-long` thousands, by chance."""

import pytest

from tests.workflows.conftest import a_world, skipping


def pytest_configure(config: pytest.Config) -> None:
    """The size follows from what was asked for: `-m long` is the long one."""
    from tests.fuzz import size

    size.LONG = config.getoption("markexpr") == "long"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In the long size, every test here is a long one."""
    if config.getoption("markexpr") == "long":
        for item in items:
            if "tests/fuzz/" in str(item.path):
                item.add_marker(pytest.mark.long)


__all__ = ["a_world", "skipping"]
