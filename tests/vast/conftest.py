"""One deployment for all compatibility tests; slow parts start first."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vast.stage.calls import Record
from tests.vast.stage.deployment import Benchmarks, Deployment, running

HERE = Path(__file__).parent
RECORD = pytest.StashKey[Record]()
WORKERS = ("theirs", "ours")
"""The endpoints: workers of the official package, and stoker's own; the same worker file but for the import line."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "call(names, differs, not_offered): what becomes of a call of the protocol"
    )
    config.stash[RECORD] = Record()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            config.stash[RECORD].select(item)
            # The first test also waits for the package index and for the deployment's start.
            item.add_marker(pytest.mark.timeout(600))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.when == "call" and report.passed and item.path.is_relative_to(HERE):
        item.config.stash[RECORD].passed(item)
    return report


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with running(tmp_path_factory.mktemp("vast")) as deployment:
        yield deployment


@pytest.fixture(scope="session")
def fleet(deployment: Deployment) -> dict[str, int]:
    """Endpoints by name, started side by side; each with one worker of the template of its name."""
    names = {name: name for name in (*WORKERS, "theirs-dataset", "ours-dataset", "theirs-tls")}
    found = {
        name: deployment.create(name, template) for name, template in (names | {"life": "theirs"}).items()
    }
    found["pair"] = deployment.create("pair", "ours", max_workers=2, cold_workers=2, min_load=1e5)
    return found


@pytest.fixture(scope="session", autouse=True)
def benchmarks(deployment: Deployment, fleet: dict[str, int]) -> Iterator[Benchmarks]:
    """Started with the first test and checked by the last, because it takes as long as most others together."""
    benchmarks = Benchmarks(deployment)
    yield benchmarks
    benchmarks.end()


@pytest.fixture(scope="session")
def ready(deployment: Deployment, fleet: dict[str, int]) -> Callable[[str], dict[str, Any]]:
    """The one worker of an endpoint, once it is ready."""

    @functools.cache
    def ready(name: str) -> dict[str, Any]:
        return deployment.ready(fleet[name])[0]

    return ready


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    return request.config.stash[RECORD]
