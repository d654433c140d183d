"""A dashboard in front of a real engine, as a browser uses it."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer

from dashboard.app import create_app
from dashboard.settings import DashboardSettings
from tests.engine.conftest import ALICE, BOB, Stage, temporal

__all__ = ["temporal"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests share one event loop, because they share one Temporal server."""
    for item in items:
        if "tests/dashboard/" in str(item.path) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


class Browser:
    """A browser of one person: cookies, forms and pages, without scripts."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def get(self, path: str, **more: Any) -> tuple[int, str]:
        async with self.http.get(self.url + path, **more) as answer:
            return answer.status, await answer.text()

    async def page(self, path: str) -> str:
        status, text = await self.get(path)
        assert status == 200, text
        return text

    async def post(self, path: str, follow: bool = True, **fields: str) -> tuple[int, str]:
        async with self.http.post(self.url + path, data=fields, allow_redirects=follow) as answer:
            return answer.status, await answer.text()

    async def sign_in(self, key: str = ALICE) -> None:
        status, text = await self.post("/sign-in", key=key)
        assert status == 200, text

    async def token(self) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', await self.page("/"))
        assert found is not None
        return found[1]

    async def submit(self, path: str, **fields: str) -> tuple[int, str]:
        return await self.post(path, csrf=await self.token(), **fields)


@pytest_asyncio.fixture(loop_scope="session")
async def stage(temporal: Any) -> AsyncIterator[Stage]:
    async with aiohttp.ClientSession() as http:
        stage = Stage(temporal, http)
        await stage.start_engine()
        yield stage
        await stage.close()


@pytest_asyncio.fixture(loop_scope="session")
async def dashboard(stage: Stage, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a dashboard in front of the stage's engine."""
    settings = DashboardSettings(
        accounts={"alice": ALICE, "bob": BOB},
        engine_url=stage.server.url,
        history_file=tmp_path / "day.sqlite",
        sample_seconds=0.05,
        public_url="http://dashboard.test",  # behind a proxy, so X-Forwarded-For names the client
    )
    server = TestServer(create_app(settings), handler_cancellation=True)
    await server.start_server()
    yield f"http://127.0.0.1:{server.port}"
    await server.close()


@pytest_asyncio.fixture(loop_scope="session")
async def browser(dashboard: str) -> AsyncIterator[Browser]:
    made = Browser(dashboard)
    yield made
    await made.http.close()


async def until_page(browser: Browser, path: str, text: str) -> str:
    """The page once it contains the text."""
    async with asyncio.timeout(20):
        while True:
            status, found = await browser.get(path)
            if status == 200 and text in found:
                return found
            await asyncio.sleep(0.05)
