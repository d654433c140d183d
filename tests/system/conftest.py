"""A whole deployment as real processes, shared by all tests of this folder."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import stoker
from run.commands.dev import DevStack
from run.settings import DeploymentSettings, load_settings
from run.state_folder.lock import free_port

ROOT = Path(__file__).parents[2]
FAILED = pytest.StashKey[bool]()

QUICK = {
    "min_load": 0.0,
    "min_workers": 1,
    "max_workers": 3,
    "cold_mult": 1.0,
    "inactivity_timeout": 5.0,
    "max_queue_time": 1.5,
    "target_queue_time": 2.0,
}
TEXT_MODEL = {"template_hash": "text-model", "search_params": "num_gpus=1", "gpu_ram": 0.0}
ROUTE = "/v1/completions"
SECONDS_MAX = 240.0
"""A deployment starts in 5 s on an idle machine, and took over a minute on one with ten times the work."""


def payload(tokens: int) -> dict[str, object]:
    return {"prompt": "The lamp was lit and ", "max_tokens": tokens}


def settings_in(state_dir: Path) -> DeploymentSettings:
    """Settings with their own ports, because another deployment may start at the same time."""
    settings = load_settings(ROOT / "temporal-dev.yaml")
    return settings.model_copy(
        update={
            "state_dir": state_dir,
            "temporal": settings.temporal.model_copy(update={"port": free_port(), "ui_port": free_port()}),
            "engine": settings.engine.model_copy(update={"port": free_port()}),
            "dashboard": settings.dashboard.model_copy(update={"port": free_port()}),
            "worker": settings.worker.model_copy(update={"metrics_port": free_port()}),
            "host_market": settings.host_market.model_copy(update={"port": free_port()}),
        }
    )


async def until(condition, *, seconds_max: float = SECONDS_MAX, what: str = ""):
    """Waits for the condition's first true value; the condition may be async."""
    value = None
    try:
        async with asyncio.timeout(seconds_max):
            while True:
                value = condition()
                if asyncio.iscoroutine(value):
                    value = await value
                if value:
                    return value
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"waited {seconds_max} s for {what or condition}; last: {value!r}") from None


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[DevStack]:
    stack = DevStack(settings_in(tmp_path / "state"))
    await stack.start()
    yield stack
    await stack.stop()


@pytest.fixture
async def client(stack: DevStack, request: pytest.FixtureRequest) -> AsyncIterator[stoker.Serverless]:
    assert stack.keys is not None
    async with stoker.Serverless(stack.keys.account_key, url=stack.settings.engine.url) as client:
        yield client
        if request.node.stash.get(FAILED, False):
            await say_why(client)


async def say_why(client: stoker.Serverless) -> None:
    """Prints the decisions of a failed test, because CI machines cannot be inspected."""
    for endpoint in await client.endpoints.list():
        for line in await client.endpoints.decisions(endpoint.id, tail=100):
            print(f"{line['at']:.2f} {line['kind']} {line['subject']}: {line['reason']}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report
