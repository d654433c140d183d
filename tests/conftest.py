"""The distribution of tests over several processes."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# A slow example on a busy machine is not a failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file stays in one process, and so does all of `tests/vast`, which shares one deployment and ends with a
    summary."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByDeployment(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/vast" if nodeid.startswith("tests/vast/") else str(super()._split_scope(nodeid))

    return ByDeployment(config, log)


LONGEST_FIRST = (
    "tests/vast/",
    "tests/system/test_whole.py",
    "tests/seeded/",
    "tests/system/",
    "tests/workflows/",
    "tests/fuzz/",
    "tests/run/",
)
"""Files that take tens of seconds, and `tests/vast`, which waits for minutes. They start first, because a long last file
leaves the other processes idle."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders the longest files first; `--no-loadscope-reorder` keeps this order."""
    items.sort(key=lambda item: _rank(item.nodeid))


def _rank(nodeid: str) -> int:
    ranks = (rank for rank, room in enumerate(LONGEST_FIRST) if nodeid.startswith(room))
    return next(ranks, len(LONGEST_FIRST))
