"""Forward proxies by HTTP_PROXY, HTTPS_PROXY and NO_PROXY; never for loopback addresses."""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest
from aiohttp import web
from typer.testing import CliRunner

import stoker
from stoker.cli.app import app
from stoker.proxies import ProxySettings
from tests.sdk.conftest import QUICK
from tests.sdk.peers import ACCOUNT_KEY, Peers

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    """The proxy variables of this machine do not count."""
    for name in (*VARIABLES, *(name.upper() for name in VARIABLES), "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)


class ForwardProxy:
    """A forward proxy on loopback: CONNECT tunnels and requests in absolute form. `hosts` resolves names."""

    def __init__(self) -> None:
        self.hosts: dict[str, int] = {}
        """`host:port` of a target → its port on loopback."""
        self.credentials: str | None = None
        """`user:password` that it requires."""
        self.requests: list[str] = []
        """Method and target of each request."""
        self.port = 0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._forward(reader, writer)
        writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1")
        line, *fields = head.rstrip("\r\n").split("\r\n")
        method, target, _ = line.split(" ")
        self.requests.append(f"{method} {target}")
        headers = {
            name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)
        }
        if self.credentials is not None:
            wanted = "Basic " + base64.b64encode(self.credentials.encode()).decode()
            if headers.get("proxy-authorization") != wanted:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
                return
        parts = urlsplit(target)
        host = target if method == "CONNECT" else f"{parts.hostname}:{parts.port or 80}"
        if host not in self.hosts:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.hosts[host])
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            kept = [field for field in fields if not field.lower().startswith(("proxy-", "connection:"))]
            request = [f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""]
            upstream_writer.write("\r\n".join(request).encode("latin1"))
        copies = [
            asyncio.ensure_future(_copy(reader, upstream_writer)),
            asyncio.ensure_future(_copy(upstream_reader, writer)),
        ]
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        for copy in copies:
            copy.cancel()
        await asyncio.gather(*copies, return_exceptions=True)
        upstream_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@pytest.fixture
async def proxy(peers) -> AsyncIterator[ForwardProxy]:
    """A proxy that reaches the fake engine as engine.test and the fake worker as worker.test:8000."""
    proxy = ForwardProxy()
    await proxy.start()
    proxy.hosts = {"engine.test:80": peers.port, "worker.test:8000": peers.worker_port}
    yield proxy
    await proxy.stop()


def remote_client() -> stoker.Serverless:
    return stoker.Serverless(ACCOUNT_KEY, url="http://engine.test", retry=QUICK, timeout=30.0)


async def request_remotely(
    peers: Peers, worker_url: str = "http://worker.test:8000", **options
) -> stoker.Answer:
    peers.route_replies.append(peers.route_to(worker_url))
    async with stoker.Serverless(
        ACCOUNT_KEY, url="http://engine.test", retry=QUICK, timeout=30.0, **options
    ) as client:
        endpoint = await client.get_endpoint("llm")
        return await endpoint.request("/x", {"n": 1})


async def test_engine_and_worker_are_reached_through_the_http_proxy(peers, proxy, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    assert (await request_remotely(peers)).json() == {"echo": {"n": 1}}
    assert proxy.requests == [
        "GET http://engine.test/api/v0/endptjobs/?client_id=me",
        "POST http://engine.test/route/",
        "POST http://worker.test:8000/x",
    ]


async def test_a_tls_worker_is_reached_through_a_connect_tunnel(peers, proxy, certificate, monkeypatch):
    async def serve(_: web.Request) -> web.Response:
        return web.json_response({"over": "tls"})

    worker = web.Application()
    worker.router.add_post("/x", serve)
    runner = web.AppRunner(worker)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    proxy.hosts["worker.test:443"] = runner.addresses[0][1]
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("https_proxy", proxy.url)
    trust = ssl.create_default_context(cafile=str(certificate))
    answer = await request_remotely(peers, "https://worker.test", verify_workers=trust)
    assert answer.json() == {"over": "tls"}
    assert "CONNECT worker.test:443" in proxy.requests
    await runner.cleanup()


async def test_loopback_addresses_never_use_the_proxy(peers, proxy, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    for host in ("127.0.0.1", "localhost"):
        url = f"http://{host}:{peers.port}"
        async with stoker.Serverless(ACCOUNT_KEY, url=url, retry=QUICK) as client:
            endpoint = await client.get_endpoint("llm")
            assert (await endpoint.request("/x", {})).status == 200
    assert proxy.requests == []


async def test_the_command_uses_the_proxy(peers, proxy):
    environ = {
        "STOKER_URL": "http://engine.test",
        "STOKER_API_KEY": ACCOUNT_KEY,
        "STOKER_CONFIG": "/nonexistent",
        "http_proxy": proxy.url,
    }
    result = await asyncio.to_thread(CliRunner().invoke, app, ["endpoints", "list", "--json"], env=environ)
    assert result.exit_code == 0, result.output
    assert "llm" in result.stdout
    assert proxy.requests == ["GET http://engine.test/api/v0/endptjobs/?client_id=me"]


async def test_a_proxy_with_credentials_gets_those_of_its_url(peers, proxy, monkeypatch):
    proxy.credentials = "user:p@ss"
    monkeypatch.setenv("HTTP_PROXY", f"http://user:p%40ss@127.0.0.1:{proxy.port}")
    assert (await request_remotely(peers)).status == 200
    assert all(
        "authorization" not in name.lower() or "p@ss" not in value
        for call in peers.worker_calls
        for name, value in call.headers.items()
    )


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_refuses_is_named_without_its_password(proxy, monkeypatch, scheme):
    proxy.credentials = "user:right"
    monkeypatch.setenv("ALL_PROXY", f"http://user:wrong@127.0.0.1:{proxy.port}")
    policy = stoker.RetryPolicy(engine_outage_seconds_max=0.0)
    async with stoker.Serverless(ACCOUNT_KEY, url=f"{scheme}://engine.test", retry=policy) as client:
        with pytest.raises(stoker.EngineUnavailable, match=rf"proxy {proxy.url}.*407.*credentials") as caught:
            await client.endpoints.list()
    assert "wrong" not in str(caught.value)


async def test_a_proxy_that_is_down_is_named(proxy, monkeypatch):
    await proxy.stop()
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    policy = stoker.RetryPolicy(engine_outage_seconds_max=0.0)
    async with stoker.Serverless(ACCOUNT_KEY, url="http://engine.test", retry=policy) as client:
        with pytest.raises(stoker.EngineUnavailable, match=f"through the proxy {proxy.url}"):
            await client.endpoints.list()


async def test_a_worker_that_the_proxy_cannot_reach_is_a_refusal_and_is_retried(peers, proxy, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    peers.route_replies.append(peers.route_to("https://unknown.test"))
    answer = await request_remotely(peers)
    assert answer.attempts == 2


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("", "http://engine.test", False),
        ("*", "http://engine.test", True),
        ("engine.test", "http://engine.test", True),
        ("ENGINE.test", "http://engine.TEST", True),
        (".test", "http://engine.test", True),
        ("*.test", "http://engine.test", True),
        ("test", "http://engine.test", True),
        ("gine.test", "http://engine.test", False),
        ("other.test, engine.test", "https://engine.test", True),
        ("engine.test:8080", "http://engine.test:8080", True),
        ("engine.test:8080", "http://engine.test", False),
        ("engine.test:443", "https://engine.test", True),
        ("10.0.0.7", "http://10.0.0.7:5000", True),
        ("10.0.0.7:5000", "http://10.0.0.7:5000", True),
        ("10.0.0.7:5001", "http://10.0.0.7:5000", False),
        ("10.0.0.0/8", "http://10.1.2.3:5000", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("fd00::/8", "http://[fd00::5]:80", True),
        ("[fd00::5]:80", "http://[fd00::5]", True),
        ("not a network/99", "http://10.0.0.7", False),
    ],
)
def test_no_proxy_names_hosts_domains_ports_and_networks(no_proxy, url, direct):
    settings = ProxySettings.from_environment(
        {"HTTP_PROXY": "http://p:1", "HTTPS_PROXY": "http://p:1", "NO_PROXY": no_proxy}
    )
    assert (settings.proxy_for(httpx.URL(url)) is None) is direct


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:80",
        "http://127.9.9.9",
        "http://localhost",
        "https://a.localhost",
        "http://[::1]",
        "http://[::ffff:127.0.0.1]",
    ],
)
def test_every_form_of_loopback_is_direct(url):
    settings = ProxySettings.from_environment({"HTTP_PROXY": "http://p:1", "HTTPS_PROXY": "http://p:1"})
    assert settings.proxy_for(httpx.URL(url)) is None


def test_the_variable_of_the_scheme_wins_and_lower_case_wins():
    def proxy_of(url: str, **environ: str) -> str | None:
        proxy = ProxySettings.from_environment(environ).proxy_for(httpx.URL(url))
        return None if proxy is None else str(proxy.url)

    both = {"ALL_PROXY": "http://all:1", "HTTPS_PROXY": "http://tls:1"}
    assert proxy_of("http://engine.test", **both) == "http://all:1"
    assert proxy_of("https://engine.test", **both) == "http://tls:1"
    assert (
        proxy_of("http://engine.test", HTTP_PROXY="http://upper:1", http_proxy="http://lower:1")
        == "http://lower:1"
    )
    assert proxy_of("http://engine.test", HTTP_PROXY="http://upper:1", http_proxy="") is None
    assert proxy_of("http://engine.test", HTTP_PROXY="proxy.test:3128") == "http://proxy.test:3128"
    assert proxy_of("http://engine.test", HTTP_PROXY="http://attacker:1", REQUEST_METHOD="GET") is None


@pytest.mark.parametrize("address", ["socks5://p:1", "ftp://p:1", "http://", "http://p:many"])
async def test_a_proxy_that_cannot_be_used_is_named_where_it_is_needed(peers, monkeypatch, address):
    monkeypatch.setenv("ALL_PROXY", address)
    async with remote_client() as client:
        with pytest.raises(stoker.Invalid, match="ALL_PROXY"):
            await client.endpoints.list()
    async with stoker.Serverless(ACCOUNT_KEY, url=peers.url, retry=QUICK) as client:
        endpoint = await client.get_endpoint("llm")
        assert (await endpoint.request("/x", {})).status == 200
