"""The environment's proxy is used for a remote marketplace and never for this machine."""

import ast
from pathlib import Path

import pytest

from run.errors import CommandError
from run.settings import DevSettings

ROOT = Path(__file__).parents[2]
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
    away = DevSettings.model_validate({"market": {"kind": "vast", "url": "https://console.vast.ai"}})
    with pytest.raises(CommandError, match="HTTPS_PROXY, HTTP_PROXY or ALL_PROXY cannot be used") as refused:
        away.market_client("a-key-of-the-market")
    assert "canary" not in str(refused.value)


async def test_a_marketplace_on_this_machine_needs_no_proxy(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    await DevSettings().market_client("a-key-of-the-market").close()
