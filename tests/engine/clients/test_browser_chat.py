"""The web page of docs/how-to/clients.md, in a real browser, chats by stream with an engine of another origin."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.engine.api.model_server import ModelServer, pyworker
from tests.engine.clients.browser import BROWSER, open_page
from tests.engine.conftest import EndpointDouble, Stage
from tests.environments import ROOT

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (apt-get install chromium)"),
]

PAGE = (ROOT / "docs/how-to/clients.md").read_text()
SHOWN_AFTER_SEND = """new Promise((resolve) => {
  let sent = false;
  const look = () => {
    const form = document.querySelector("form");
    if (form?.onsubmit && !sent) { sent = true; form.requestSubmit(); }
    const text = document.querySelector("pre")?.textContent ?? "";
    return text.endsWith("lo") ? resolve(text) : setTimeout(look, 20);
  };
  look();
})"""
PREFLIGHT_REFUSED = """fetch(%r, {method: "POST", headers: {"Content-Type": "application/json"}, body: "{}"})
  .then((answer) => String(answer.status), (fault) => String(fault))"""


@asynccontextmanager
async def web_site(stage: Stage, endpoint: EndpointDouble) -> AsyncIterator[TestServer]:
    """A site that serves the example page for this endpoint."""
    found = re.search(r"^```html\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    text = found[1].replace("http://127.0.0.1:8080/openai/llm/v1", _address(stage, endpoint))
    text = text.replace("sk-ep-...", endpoint.key).replace('"llm"', f'"{endpoint.name}"')

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    async with TestServer(app) as server:
        yield server


def _address(stage: Stage, endpoint: EndpointDouble) -> str:
    return f"{stage.server.url}/openai/{endpoint.name}/v1"


async def test_a_page_of_another_origin_chats_by_stream(stage: Stage, tmp_path: Path) -> None:
    endpoint = await stage.endpoint(allowed_origins=["*"])
    model = ModelServer()
    async with (
        pyworker(stage, endpoint, model, tmp_path / "worker"),
        web_site(stage, endpoint) as site,
        open_page(f"http://chat.example:{site.port}/", tmp_path / "profile") as tab,
    ):
        assert await tab.evaluate(SHOWN_AFTER_SEND) == "hello"
        if folder := os.environ.get("STOKER_SCREENSHOTS"):
            await asyncio.to_thread((Path(folder) / "chat.png").write_bytes, await tab.screenshot())
    assert b'"stream":true' in model.bodies[-1]


async def test_a_page_that_the_endpoint_does_not_name_reads_nothing(stage: Stage, tmp_path: Path) -> None:
    endpoint = await stage.endpoint(allowed_origins=["https://chat.example.com"])
    async with (
        web_site(stage, endpoint) as site,
        open_page(f"http://chat.example:{site.port}/", tmp_path / "profile") as tab,
    ):
        url = _address(stage, endpoint) + "/chat/completions"
        assert await tab.evaluate(PREFLIGHT_REFUSED % url) == "TypeError: Failed to fetch"
