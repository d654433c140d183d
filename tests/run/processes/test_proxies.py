"""The environment's proxy is used for a remote marketplace and never for this machine."""

import ast
from pathlib import Path

import pytest

from run.commands.dev import _environment
from run.errors import CommandError
from run.processes.proxy_environment import proxy_environment
from run.settings import DeploymentSettings

ROOT = Path(__file__).parents[3]
ROOMS = (
    "run",
    "market",
    "engine",
    "activities",
    "workflows",
    "sdk",
    "pyworker",
    "wire",
    "examples",
    "benchmarks",
)
CLIENTS = {"httpx.AsyncClient", "httpx.Client", "aiohttp.ClientSession"}
FOLLOW_THE_ENVIRONMENT = ("httpx.get(", "httpx.post(", "httpx.request(", "urllib.request", "import requests")
AIOHTTP_USES_NONE = "aiohttp.ClientSession"
"""Ignores the environment by default."""


def test_every_http_client_sets_trust_env():
    silent = []
    for path in sorted(one for room in ROOMS for one in (ROOT / room).rglob("*.py")):
        text = path.read_text()
        silent += [f"{path.relative_to(ROOT)}: {call}" for call in FOLLOW_THE_ENVIRONMENT if call in text]
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in CLIENTS:
                continue
            said = any(keyword.arg == "trust_env" for keyword in node.keywords)
            if not said and ast.unparse(node.func) != AIOHTTP_USES_NONE:
                silent.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert silent == []


@pytest.mark.parametrize(
    "proxy", ["socks5://127.0.0.1:9", "socks5h://user:canary@h:1", "ftp://x", "http://[::1", "://"]
)
def test_a_proxy_that_cannot_be_used_is_one_sentence_without_its_password(monkeypatch, proxy):
    for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, proxy)
    away = DeploymentSettings.model_validate({"market": {"kind": "vast", "url": "https://console.vast.ai"}})
    with pytest.raises(CommandError, match="HTTPS_PROXY, HTTP_PROXY or ALL_PROXY cannot be used") as refused:
        away.market_client("a-key-of-the-market")
    assert "canary" not in str(refused.value)


async def test_a_marketplace_on_this_machine_needs_no_proxy(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    await DeploymentSettings().market_client("a-key-of-the-market").close()


def test_children_and_instances_get_the_operators_proxy_and_never_use_it_for_loopback(monkeypatch):
    for name in ("ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "intranet.example, localhost")
    expected = "intranet.example,localhost,127.0.0.1,::1"
    for role in ("market", "worker", "engine"):
        given = _environment(role)
        assert given["HTTPS_PROXY"] == "http://proxy.example:3128"
        assert given["NO_PROXY"] == given["no_proxy"] == expected
    assert "HTTPS_PROXY" not in _environment(None), "Temporal calls nothing"
    assert proxy_environment({"NO_PROXY": "x"}) == {}


def test_an_instance_sees_the_proxy():
    settings = DeploymentSettings().host_market_settings(
        market_key="a-market-key", env=proxy_environment({"http_proxy": "http://proxy.example:3128"})
    )
    assert settings.env["http_proxy"] == "http://proxy.example:3128"
    assert settings.env["no_proxy"] == "127.0.0.1,localhost,::1"
