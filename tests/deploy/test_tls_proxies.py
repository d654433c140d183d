"""The samples for Caddy and nginx: streams pass on at once, and a request may wait for minutes."""

import asyncio
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from run.state_folder.lock import free_port

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "deploy" / "proxy"
WAIT_SECONDS = 100.0
"""Longer than the default timeouts of nginx (60 s) and of most other proxies."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


class Engine:
    """The engine's side of the proxy."""

    def __init__(self) -> None:
        self.first_part_read = asyncio.Event()
        self.hosts: list[str] = []
        self.paths: list[str] = []

    async def start(self) -> int:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/stream", self.stream)
        app.router.add_post("/upload", self.upload)
        app.router.add_get("/wait", self.wait)
        app.router.add_get("/w/{path:.*}", self.wait_not)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self._runner = runner
        return int(runner.addresses[0][1])

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Sends the second part only after the client has read the first: a proxy that buffers never gets there."""
        self.hosts.append(request.headers["Host"])
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await reply.prepare(request)
        await reply.write(b"data: first\n\n")
        await asyncio.wait_for(self.first_part_read.wait(), 30)
        await reply.write(b"data: second\n\n")
        return reply

    async def upload(self, request: web.Request) -> web.Response:
        return web.json_response({"bytes": len(await request.read())})

    async def wait(self, request: web.Request) -> web.Response:
        await asyncio.sleep(WAIT_SECONDS)
        return web.json_response({"waited": True})

    async def wait_not(self, request: web.Request) -> web.Response:
        self.paths.append(request.raw_path)
        return web.json_response({})


def caddy_command(folder: Path, engine: int, port: int) -> tuple[list[str], dict[str, str]]:
    """Caddy with the sample as it is, on other ports and with an authority of its own."""
    options = f"http_port {free_port()}\nhttps_port {port}\nadmin off\nskip_install_trust\nauto_https disable_redirects"
    (folder / "Caddyfile").write_text(f"{{\n{options}\n}}\nimport {SAMPLES / 'Caddyfile'}\n")
    command = ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    home = {
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "HOME": str(folder),
    }
    return command, home | {"STOKER_HOST": "localhost", "STOKER_ENGINE": f"127.0.0.1:{engine}"}


def nginx_command(folder: Path, engine: int, port: int) -> tuple[list[str], dict[str, str]]:
    """nginx with the sample, on other ports and with a certificate made here."""
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", "privkey.pem", "-out", "fullchain.pem"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=60,
    )
    sample = (SAMPLES / "nginx.conf").read_text()
    changes = {
        "server 127.0.0.1:8080;": f"server 127.0.0.1:{engine};",
        "listen 443 ssl http2;": f"listen 127.0.0.1:{port} ssl http2;",
        "listen [::]:443 ssl http2;": "",
        "server_name engine.example.org;": "server_name localhost;",
        "/etc/ssl/stoker/": f"{folder}/",
    }
    for old, new in changes.items():
        assert old in sample
        sample = sample.replace(old, new)
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; {temporary}\n{sample}\n}}\n"
    )
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")], {}


PROXIES: dict[str, Callable[[Path, int, int], tuple[list[str], dict[str, str]]]] = {
    "caddy": caddy_command,
    "nginx": nginx_command,
}


class Proxy:
    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process = process
        self.url = url

    def client(self) -> httpx.AsyncClient:
        trust = ssl.create_default_context()
        trust.check_hostname = False
        trust.verify_mode = ssl.CERT_NONE
        return httpx.AsyncClient(base_url=self.url, verify=trust, trust_env=False, timeout=200)

    async def wait_until_listening(self) -> None:
        deadline = time.monotonic() + 30
        async with self.client() as http:
            while True:
                try:
                    await http.get("/w/ready")
                    return
                except httpx.TransportError:
                    assert self.process.poll() is None, "the proxy ended"
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.05)


@pytest.fixture(params=PROXIES)
def program(request) -> str:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[str, int], Proxy]]:
    running: list[subprocess.Popen[bytes]] = []

    def start(program: str, engine: int) -> Proxy:
        port = free_port()
        command, environ = PROXIES[program](tmp_path, engine, port)
        with (tmp_path / "out.log").open("wb") as log:
            running.append(subprocess.Popen(command, env=os.environ | environ, stdout=log, stderr=log))
        return Proxy(running[0], f"https://localhost:{port}")

    yield start
    for process in running:
        process.terminate()
        process.wait(timeout=30)


async def test_streams_pass_at_once_bodies_up_to_the_engines_limit_and_paths_unchanged(
    program, started
) -> None:
    engine = Engine()
    proxy = started(program, await engine.start())
    await proxy.wait_until_listening()
    async with proxy.client() as http:
        parts = []
        async with http.stream("POST", "/stream", json={"stream": True}) as reply:
            async for line in reply.aiter_lines():
                if line:
                    parts.append(line)
                    engine.first_part_read.set()
        assert parts == ["data: first", "data: second"]
        assert engine.hosts[0].partition(":")[0] == "localhost", (
            "the engine checks the name that the client used"
        )
        body = b"x" * (31 * 1024 * 1024)
        assert (await http.post("/upload", content=body)).json() == {"bytes": len(body)}
        await http.get("/w/0123456789ab/sealed-key_A/worker/bootstrap.sh?a=%2F")
        assert engine.paths[-1] == "/w/0123456789ab/sealed-key_A/worker/bootstrap.sh?a=%2F"
    await engine.stop()


async def test_a_request_that_waits_for_a_worker_is_not_given_up(program, started) -> None:
    engine = Engine()
    proxy = started(program, await engine.start())
    await proxy.wait_until_listening()
    async with proxy.client() as http:
        assert (await http.get("/wait")).json() == {"waited": True}
    await engine.stop()
