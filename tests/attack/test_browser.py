"""A real browser opens a page of another origin, and the page tries everything that a page can send."""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from run.temporal_ui import BLOCKED_PORTS
from tests.attack.conftest import KEY
from tests.attack.pages import BATCH_BODY, BATCH_PATH, SIGNAL_BODY, SIGNAL_PATH, VICTIM, temporal

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(
    BROWSER is None,
    reason="no Chromium is installed (apt-get install chromium); the raw-socket tests always run",
)
SECONDS_MAX = 150

PAGE = """<!doctype html><title>attack</title><body><script>
const targets = %(targets)s;
const said = {};
const attempt = async (name, start) => {
  try { said[name] = String(await Promise.race([start(), new Promise(r => setTimeout(() => r("no answer"), 8000))])); }
  catch (fault) { said[name] = "refused: " + fault; }
};
const loaded = (element) => new Promise(r => { element.onload = () => r("load"); element.onerror = () => r("error"); });
const form = (url, body) => {
  const frame = document.createElement("iframe"); frame.name = "f" + Math.random(); document.body.append(frame);
  const made = document.createElement("form");
  Object.assign(made, {method: "POST", action: url, target: frame.name, enctype: "text/plain"});
  const field = document.createElement("input"); field.name = body; made.append(field); document.body.append(made);
  made.submit();
  return loaded(frame);
};
const socket = (url) => new Promise(r => {
  const one = new WebSocket(url); one.onopen = () => r("open"); one.onerror = () => r("error");
});
const inFrame = (url) => {
  const frame = document.createElement("iframe"); frame.src = url; document.body.append(frame); return loaded(frame);
};
(async () => {
  await Promise.all(targets.map(async ({name, host, port, path, body}) => {
    for (const at of [`${host}:${port}`, `rebound.example:${port}`]) {
      const url = `http://${at}${path}`;
      const simple = {method: "POST", mode: "no-cors", headers: {"Content-Type": "text/plain"}, body};
      await attempt(`${name} ${at} simple`, async () => (await fetch(url, simple)).type);
      await attempt(`${name} ${at} json`, async () => (await fetch(url, {
        method: "POST", headers: {"Content-Type": "application/json"}, body})).status);
      await attempt(`${name} ${at} read`, async () => (await fetch(`http://${at}/`)).status);
      await attempt(`${name} ${at} beacon`, async () => navigator.sendBeacon(url, body));
      await attempt(`${name} ${at} form`, () => form(url, body));
      await attempt(`${name} ${at} frame`, () => inFrame(url));
      await attempt(`${name} ${at} image`, () => { const i = new Image(); i.src = url; return loaded(i); });
      await attempt(`${name} ${at} socket`, () => socket(`ws://${at}${path}`));
    }
  }));
  await fetch("/said", {method: "POST", body: JSON.stringify(said)});
})();
</script>"""


class Attacker:
    """The attacker's web site, and a server without any guard that shows which requests the page really sends."""

    def __init__(self, targets: list[dict[str, object]]) -> None:
        self.targets = targets
        self.said: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        self.arrived: list[tuple[str, str, str]] = []
        """Method, host and body of what reached the server without a guard."""
        self._runners: list[web.AppRunner] = []

    async def open(self) -> str:
        """The page's address."""
        unguarded = await self._serve(self._arrive)
        self.targets.append(
            {"name": "unguarded", "host": "127.0.0.1", "port": unguarded, "path": "/x", "body": "{}"}
        )
        return f"http://attacker.example:{await self._serve(self._site)}/"

    async def close(self) -> None:
        for runner in self._runners:
            await runner.cleanup()

    async def _serve(self, handler: Callable[[web.Request], object]) -> int:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)  # type: ignore[arg-type]
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return int(runner.addresses[0][1])

    async def _arrive(self, request: web.Request) -> web.Response:
        self.arrived.append((request.method, request.host.partition(":")[0], await request.text()))
        return web.Response(text="ok")

    async def _site(self, request: web.Request) -> web.Response:
        if request.path == "/said":
            if not self.said.done():
                self.said.set_result(json.loads(await request.text()))
            return web.Response(text="")
        return web.Response(text=PAGE % {"targets": json.dumps(self.targets)}, content_type="text/html")


async def visit(url: str, profile: Path, until: "asyncio.Future[dict[str, str]]") -> dict[str, str]:
    """Open the page in a headless browser; what the page says of its attempts."""
    assert BROWSER is not None
    process = await asyncio.create_subprocess_exec(
        BROWSER,
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *(f"--user-data-dir={profile}", "--no-proxy-server", "--disable-background-networking"),
        "--host-resolver-rules=MAP *.example 127.0.0.1",
        "--remote-debugging-port=0",
        url,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(SECONDS_MAX):
            return await until
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@needs_browser
async def test_a_page_in_a_browser_changes_nothing_on_this_machine(target, tmp_path):
    async with temporal(tmp_path / "state") as server:
        engine, market = await target("engine"), await target("market")
        targets = [
            {"name": f"temporal {port}", "host": host, "port": port, "path": SIGNAL_PATH, "body": SIGNAL_BODY}
            for host, port in [*server.backend_ports(), ("127.0.0.1", server.ui_port)]
        ]
        targets += [
            {**one, "name": f"batch {one['port']}", "path": BATCH_PATH, "body": BATCH_BODY} for one in targets
        ]
        fault = '{"fault": "server_error", "times": 1000}'
        keyed = f"?api_key={KEY}"
        targets += [
            {
                "name": "engine",
                "host": "127.0.0.1",
                "port": engine.port,
                "path": f"/route/{keyed}",
                "body": "{}",
            },
            {
                "name": "market",
                "host": "127.0.0.1",
                "port": market.port,
                "path": f"/host/faults/{keyed}",
                "body": fault,
            },
        ]
        attacker = Attacker(targets)
        try:
            said = await visit(await attacker.open(), tmp_path / "profile", attacker.said)
        finally:
            await attacker.close()
        # The page does what it says: all of it arrives where nothing is guarded.
        assert {method for method, _, _ in attacker.arrived} >= {"POST", "GET", "OPTIONS"}
        assert {host for _, host, _ in attacker.arrived} == {"127.0.0.1", "rebound.example"}
        assert sum(body == "{}" for _, _, body in attacker.arrived) >= 2
        assert said[f"unguarded 127.0.0.1:{attacker.targets[-1]['port']} simple"] == "opaque"
        # Nothing was changed, and nothing could be read.
        assert await server.signals() == 0
        statuses = {name: text for name, text in said.items() if text.isdigit() and "unguarded" not in name}
        assert statuses == {}
        opened = {name: text for name, text in said.items() if text == "open"}
        assert opened == {}
        answer = await market.say(
            f"GET /host/faults/{keyed} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n".encode()
        )
        assert b'"server_error"' not in answer
        assert await engine.serves()
        # The UI behind its guard cannot be reached at all.
        blocked = [(host, port) for host, port in server.backend_ports() if port in BLOCKED_PORTS]
        assert len(blocked) >= 1
        for host, port in blocked:
            assert said[f"temporal {port} {host}:{port} simple"].startswith("refused")
            assert said[f"temporal {port} rebound.example:{port} simple"].startswith("refused")


@needs_browser
async def test_a_person_sees_the_workflow_in_the_ui_behind_its_guard(tmp_path):
    assert BROWSER is not None
    async with temporal(tmp_path / "state") as server:
        process = await asyncio.create_subprocess_exec(
            BROWSER,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--no-proxy-server", "--virtual-time-budget=20000"),
            "--dump-dom",
            f"http://127.0.0.1:{server.ui_port}/namespaces/stoker/workflows",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(SECONDS_MAX):
                shown, _ = await process.communicate()
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        assert f">{VICTIM}<".encode() in shown.replace(b" ", b"").replace(b"\n", b""), shown[-2000:]
