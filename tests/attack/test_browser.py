"""A real browser opens a page of another origin, which tries every kind of request."""

import asyncio
import os
import signal

import pytest

from run.processes.temporal_ui import BLOCKED_PORTS
from tests.attack.conftest import KEY
from tests.attack.pages import (
    BATCH_BODY,
    BATCH_PATH,
    BROWSER,
    SECONDS_MAX,
    SIGNAL_BODY,
    SIGNAL_PATH,
    VICTIM,
    Attacker,
    temporal,
    visit,
)

needs_browser = pytest.mark.skipif(
    BROWSER is None,
    reason="no Chromium is installed (apt-get install chromium); the raw-socket tests always run",
)


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
        # Control: all requests of the page arrive at the unprotected server.
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
