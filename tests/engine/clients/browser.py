"""A headless Chromium with one tab, controlled over the DevTools protocol."""

import asyncio
import base64
import itertools
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS_MAX = 120


class Tab:
    """One page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._events: set[str | None] = set()

    async def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            answer = await self._socket.receive_json()
            self._events.add(answer.get("method"))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    async def navigate(self, url: str) -> None:
        """Open a page and wait until it is loaded."""
        await self._call("Page.enable")
        await self._call("Page.navigate", url=url)
        while "Page.loadEventFired" not in self._events:
            self._events.add((await self._socket.receive_json()).get("method"))

    async def evaluate(self, script: str) -> Any:
        """The value of an expression; a promise is awaited."""
        answer = await self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def screenshot(self) -> bytes:
        """The page as a PNG."""
        return base64.b64decode((await self._call("Page.captureScreenshot", format="png"))["data"])


@asynccontextmanager
async def open_page(url: str, profile: Path, *, seconds_max: float = SECONDS_MAX) -> AsyncIterator[Tab]:
    """Open the page for at most `seconds_max`. Names below `example` are this machine."""
    assert BROWSER is not None
    process = await asyncio.create_subprocess_exec(
        BROWSER,
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *(f"--user-data-dir={profile}", "--no-proxy-server", "--disable-background-networking"),
        *("--host-resolver-rules=MAP *.example 127.0.0.1", "--window-size=640,240"),
        "--remote-debugging-port=0",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds_max), aiohttp.ClientSession() as http:
            address = await _address(http, profile)
            async with http.ws_connect(address, max_msg_size=0) as socket:
                tab = Tab(socket)
                await tab.navigate(url)
                yield tab
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _address(http: aiohttp.ClientSession, profile: Path) -> str:
    """The address of the tab's socket, as soon as the browser has a tab."""
    file = profile / "DevToolsActivePort"
    while True:
        if await asyncio.to_thread(file.exists) and (text := await asyncio.to_thread(file.read_text)):
            async with http.get(f"http://127.0.0.1:{text.splitlines()[0]}/json") as answer:
                for page in await answer.json(content_type=None):
                    if page["type"] == "page":
                        return str(page["webSocketDebuggerUrl"])
        await asyncio.sleep(0.1)
