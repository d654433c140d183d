"""How the tests are shared out when several processes run them."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Properties are judged by what they find; a busy machine is no finding.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file stays in one process; so does all of `tests/vast`, which shares one deployment and looks back at itself."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByDeployment(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/vast" if nodeid.startswith("tests/vast/") else str(super()._split_scope(nodeid))

    return ByDeployment(config, log)


LONGEST_FIRST = (
    "tests/system/test_whole.py",
    "tests/seeded/",
    "tests/system/",
    "tests/workflows/",
    "tests/fuzz/",
    "tests/run/",
)
"""What takes tens of seconds a file: begun last, one would keep one process busy and the other waiting. Two whole deployments
do not begin side by side."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first; with `--no-loadscope-reorder` they are also given out so."""
    items.sort(key=lambda item: _rank(item.nodeid))


def _rank(nodeid: str) -> int:
    ranks = (rank for rank, room in enumerate(LONGEST_FIRST) if nodeid.startswith(room))
    return next(ranks, len(LONGEST_FIRST))
