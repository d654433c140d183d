"""The marketplace as a command."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hosts.__main__ import main
from hosts.serve import serve
from hosts.settings import HostMarketSettings

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hosts", *arguments],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "text", ["{", '{"state_dir": "/x"}', '{"state_dir": "/x", "api_keys": ["short-k"]}', None]
)
def test_settings_that_cannot_be_read_are_one_sentence(tmp_path, capsys, text):
    file = tmp_path / "settings.json"
    if text is not None:
        file.write_text(text)
    assert main(["--settings", str(file)]) == 2
    said = capsys.readouterr().err
    assert str(file) in said
    assert "short-k" not in said
    assert said.count("\n") == 1


def test_a_second_market_on_the_same_state_names_the_first(market_process):
    market = market_process()
    ended = run("--settings", str(market.file))
    assert ended.returncode == 2
    assert f"pid {market.process.pid}" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_a_port_in_use_is_reported_before_any_instance_is_touched(market_process, tools):
    market = market_process()
    bench = tools.Bench(market.url)
    instance_id = await bench.rent()
    await bench.reaches(instance_id, "running")
    await bench.close()
    market.end(signal.SIGTERM)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run("--settings", str(market.file), "--port", str(taken.getsockname()[1]))
    assert ended.returncode == 2
    assert "in use" in ended.stderr
    assert "instance_started" not in ended.stderr


async def test_its_url_holds_an_ipv6_address_in_brackets(tmp_path):
    settings = HostMarketSettings.model_validate(
        {"state_dir": tmp_path / "state", "api_keys": ["a-key-of-the-test"]}
    )
    stop, urls = asyncio.Event(), []

    def ready(url: str) -> None:
        urls.append(url)
        stop.set()

    await serve(settings, address="::1", ready=ready, stop=stop)
    assert re.fullmatch(r"http://\[::1\]:\d+", urls[0])


def test_ctrl_c_ends_it_cleanly(market_process):
    market = market_process()
    assert market.end(signal.SIGINT) == 0
    assert "Traceback" not in market.errors.read_text()
