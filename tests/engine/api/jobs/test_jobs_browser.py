"""A page in a real browser makes an image with ComfyUI's API, from an origin that the endpoint allows and from another."""

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web

from tests.attack.pages import BROWSER, visit
from tests.comfyui import PNG, comfyui_handlers
from tests.engine.api.jobs.test_jobs import ComfyModel
from tests.engine.api.model_server import pyworker
from tests.engine.conftest import Stage

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (apt-get install chromium)"),
]

PAGE = """<!doctype html><title>images</title><body><script>
const engine = %(engine)s, endpoint = %(endpoint)s, key = %(key)s;

function echoed(url, protocols) {
  return new Promise((resolve) => {
    const socket = new WebSocket(url, protocols);
    socket.onopen = () => socket.send("hello");
    socket.onmessage = (event) => { resolve(`${event.data} by ${socket.protocol}`); socket.close(); };
    socket.onerror = () => resolve("refused");
  });
}

function image(base) {
  return new Promise((resolve) => {
    const socket = new WebSocket(base.replace("http", "ws") + "/ws?clientId=page");
    socket.onopen = async () => {
      const body = JSON.stringify({ prompt: { 3: {} }, client_id: "page" });
      const headers = { "Content-Type": "application/json" };
      const queued = await fetch(base + "/prompt", { method: "POST", body, headers });
      if (queued.status !== 200) resolve(await queued.text());
    };
    socket.onmessage = async (event) => {
      const data = typeof event.data === "string" ? JSON.parse(event.data).data : {};
      if (data.node !== null) return;
      const found = (await (await fetch(`${base}/history/${data.prompt_id}`)).json())[data.prompt_id];
      const name = found.outputs[9].images[0].filename;
      const picture = await (await fetch(`${base}/view?filename=${name}`)).blob();
      resolve(`${picture.type} ${picture.size}`);
      socket.close();
    };
    socket.onerror = () => resolve("refused");
  });
}

(async () => {
  const report = {};
  const door = engine.replace("http", "ws") + `/openai/${endpoint}/echo`;
  report.socket = await echoed(door, ["stoker", "openai-insecure-api-key." + key]);
  report.without = await echoed(door, []);
  try {
    const headers = { Authorization: "Bearer " + key };
    const opened = await fetch(`${engine}/job/${endpoint}`, { method: "POST", headers });
    report.image = await image((await opened.json()).url);
  } catch (fault) {
    report.image = "refused";
  }
  await fetch("/said", { method: "POST", body: JSON.stringify(report) });
})();
</script>"""


class Site:
    """The page's own server."""

    def __init__(self) -> None:
        self.said: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        self.page = ""
        app = web.Application()
        app.router.add_get("/", self._page)
        app.router.add_post("/said", self._said)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def start(self) -> str:
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}"

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text=self.page, content_type="text/html")

    async def _said(self, request: web.Request) -> web.Response:
        if not self.said.done():
            self.said.set_result(json.loads(await request.text()))
        return web.Response(text="")


async def test_a_page_uses_jobs_and_websockets_only_from_an_allowed_origin(
    stage: Stage, tmp_path: Path
) -> None:
    allowed, other = Site(), Site()
    origins = [await allowed.start(), await other.start()]
    endpoint = await stage.endpoint(allowed_origins=origins[:1])
    values = {"engine": stage.server.url, "endpoint": endpoint.name, "key": endpoint.key}
    page = PAGE % {name: json.dumps(value) for name, value in values.items()}
    reports = []
    try:
        async with pyworker(
            stage, endpoint, ComfyModel(), tmp_path / "worker", handlers=comfyui_handlers(), health="/queue"
        ):
            for site, origin in zip((allowed, other), origins, strict=True):
                site.page = page
                reports.append(await visit(origin, tmp_path / origin.rpartition(":")[2], site.said))
    finally:
        for site in (allowed, other):
            await site.runner.cleanup()
    assert reports == [
        {"socket": "hello by stoker", "without": "refused", "image": f"image/png {len(PNG)}"},
        {"socket": "refused", "without": "refused", "image": "refused"},
    ]
