"""Plants secrets everywhere, runs a deployment, then searches everything that could have stored one."""

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

import stoker
from hosts.settings import TemplateSettings
from market.vast.client import VastMarket
from run.commands.dev import DevStack
from run.notifications import NotifySettings, WebhookSettings
from stoker_wire.security.token import mint_worker_token

from .conftest import QUICK, ROUTE, TEXT_MODEL, payload, settings_in, until

Value = TypeVar("Value")

CANARIES = {
    "account": "sk-canary-account-4f1c9a7e2b",
    "hmac": "canary-hmac-secret-8d3e5f6a1c0b-32-bytes",
    "market": "mk-canary-market-91ab3c77de",
    "reference": "hf_canary_reference_5b2d8e4410",
    "plain": "hf_canary_plain_c3f07719aa",
    "notify": "whsec_" + base64.b64encode(b"canary-notify-secret-4c1d9e72f6a8").decode(),
    "wrong": "sk-canary-of-nobody-77aa61",
}
"""`reference` is the value of `secret:HF_TOKEN`; `plain` is plain text in the marketplace's template; `wrong` is a
key that a caller tries."""

HELD_BY = {
    "temporal": set(),
    "market": {"market"},
    "worker": {"hmac", "market", "reference", "notify"},
    "engine": {"account", "hmac", "market", "notify"},
    "dashboard": {"account"},
}
"""The secrets that each process may have in its environment."""


@pytest.fixture
async def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DevStack]:
    for name, canary in [
        ("STOKER_ACCOUNT_KEY", "account"),
        ("STOKER_HMAC_SECRET", "hmac"),
        ("STOKER_MARKET_KEY", "market"),
        ("STOKER_SECRET_HF_TOKEN", "reference"),
        ("STOKER_NOTIFY_SECRET_OPS", "notify"),
    ]:
        monkeypatch.setenv(name, CANARIES[canary])
    settings = settings_in(tmp_path / "state")
    model = next(each for each in settings.host_market.templates if each.hash_id == "text-model")
    env = f"{model.env} -e HF_TOKEN=secret:HF_TOKEN -e OTHER_TOKEN={CANARIES['plain']}"
    planted = TemplateSettings(name="planted", hash_id="planted", env=env, onstart=model.onstart)
    host = settings.host_market.model_copy(update={"templates": (*settings.host_market.templates, planted)})
    monkeypatch.setattr("run.commands.dev.READY_SECONDS_MAX", 180.0)  # a busy machine is not a failure
    notify = NotifySettings(webhooks=(WebhookSettings(name="ops", url="http://127.0.0.1:9/"),))
    stack = DevStack(settings.model_copy(update={"host_market": host, "notify": notify}))
    await stack.start()
    yield stack
    await stack.stop()


async def patiently(call: Callable[[], Awaitable[Value]]) -> Value:
    """The call's result; repeated while a busy machine delays the engine's reads of Temporal."""
    for _ in range(10):
        try:
            return await call()
        except stoker.EngineUnavailable:
            await asyncio.sleep(1)
    return await call()


class Life:
    """The actions on the deployment, and all of its answers."""

    def __init__(self, stack: DevStack) -> None:
        self.stack = stack
        self.said: dict[str, str] = {}
        self.url = stack.settings.engine.url

    async def live(self) -> None:
        async with stoker.Serverless(CANARIES["account"], url=self.url) as client:
            made = await patiently(lambda: client.endpoints.create("canary", **QUICK))
            asked = {**TEXT_MODEL, "template_hash": "planted"}
            group = await patiently(lambda: client.workergroups.create(made.id, **asked))
            endpoint = await client.get_endpoint("canary")
            await endpoint.request(ROUTE, payload(4), cost=4, timeout=150)
            workers = await patiently(lambda: client.endpoints.workers(made.id))
            self.instances = [worker.id for worker in workers]
            disk = self.stack.state_dir / "market/instances" / str(self.instances[0]) / "disk"
            self.environments = {
                entry.decode(errors="replace")
                for process in _processes_with(f"WORKSPACE={disk}")
                for entry in (process / "environ").read_bytes().split(b"\0")
            }
            self.pids = dict(self.stack.pids)
            self.processes = {name: _process(pid) for name, pid in self.pids.items()}
            await self.mistakes(made.id, group.id)
            await patiently(lambda: client.endpoints.update(made.id, max_queue_time=2.0))
            await patiently(lambda: client.workergroups.update_workers(group.id))
            await self.command_line(group.id)
            await patiently(lambda: client.endpoints.delete(made.id))
        market = VastMarket(self.stack.settings.market_url, CANARIES["market"])

        async def released() -> bool:
            return await market.list() == []

        await until(released, what="the marketplace's list to be empty", seconds_max=180)
        await market.close()

    async def mistakes(self, endpoint_id: int, group_id: int) -> None:
        """Bad keys, bad bodies, secrets where none belong, and a marketplace that fails."""
        token = mint_worker_token(b"another secret, of somebody else", endpoint_id, "0123456789ab")
        good = {"Authorization": f"Bearer {CANARIES['account']}"}
        bad = {"Authorization": f"Bearer {CANARIES['wrong']}"}
        plain = f'--env "-e HF_TOKEN={CANARIES["reference"]}"'
        calls = [
            ("GET", "/api/v0/endptjobs/", None, good),
            ("GET", f"/api/v0/endptjobs/?api_key={CANARIES['wrong']}", None, {}),
            ("GET", f"/api/v0/endptjobs/?api_key={CANARIES['account']}", None, {}),
            ("GET", "/api/v0/users/current/", None, bad),
            ("GET", "/api/v0/instances/", None, good),
            ("GET", "/api/v0/template/?select_filters={}", None, good),
            ("GET", "/metrics", None, good),
            ("GET", "/metrics", None, bad),
            ("POST", "/route/", {"endpoint": "canary", "api_key": CANARIES["wrong"]}, {}),
            ("POST", "/route/", {"endpoint": 7, "api_key": CANARIES["account"]}, {}),
            ("POST", "/route/", {"endpoint": "nobody", "api_key": CANARIES["account"]}, {}),
            ("POST", "/worker_status/", {"id": 1, "mtoken": token}, {}),
            ("POST", "/worker_status/", {"id": "x", "mtoken": CANARIES["wrong"]}, {}),
            ("PUT", f"/api/v0/workergroups/{group_id}/", {"launch_args": plain}, good),
            ("PUT", f"/api/v0/workergroups/{group_id}/", {"launch_args": '--login "-u a -p b"'}, good),
            ("PUT", f"/api/v0/workergroups/{group_id}/", {"launch_args": '--env "-e A=secret:NOBODY"'}, good),
            ("PUT", f"/api/v0/workergroups/{group_id}/", {"launch_args": ""}, good),
            ("POST", "/openai/canary/v1/completions", {"prompt": "x"}, bad),
        ]
        async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
            faulty = {"fault": "server_error", "path": "/api/v0/asks/", "count": 2}
            market = {"Authorization": f"Bearer {CANARIES['market']}"}
            await http.post(f"{self.stack.settings.market_url}/host/faults/", json=faulty, headers=market)
            for method, path, body, headers in calls:
                answer = await http.request(method, self.url + path, json=body, headers=headers)
                hidden = path.replace(CANARIES["account"], "account").replace(CANARIES["wrong"], "wrong")
                self.said[f"{method} {hidden} {len(self.said)}"] = str(answer.headers) + answer.text
                if body is not None and "-e HF_TOKEN=" in str(body):
                    assert answer.json()["error"] == "plain_secret"

    async def command_line(self, group_id: int) -> None:
        """The output of `stoker`, errors included; its key comes from the environment, not from its arguments."""
        commands = [
            (["endpoints", "show", "canary", "--json"], "account"),
            (["workers", "canary", "--json"], "account"),
            (["logs", "canary", "--level", "3"], "account"),
            (["decisions", "canary", "--json"], "account"),
            (["workers", "nobody"], "account"),
            (["endpoints", "list"], "wrong"),
        ]
        for command, key in commands:
            process = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).parent / "stoker"),
                *command,
                env={
                    "PATH": os.environ["PATH"],
                    "STOKER_URL": self.url,
                    "STOKER_API_KEY": CANARIES[key],
                    "HOME": str(self.stack.state_dir),
                },
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            said, _ = await process.communicate()
            self.said[f"stoker {' '.join(command)} ({key})"] = said.decode(errors="replace")

    async def histories(self) -> dict[str, str]:
        """Every history, memo and search attribute, as Temporal returns them."""
        client = await self.stack.client()
        found = {}
        async for run in client.list_workflows():
            handle = client.get_workflow_handle(run.id, run_id=run.run_id)
            history = await handle.fetch_history()
            described = await handle.describe()
            memo = await described.memo()
            found[f"{run.id}/{run.run_id}"] = "\n".join(
                [history.to_json(), str(memo), str(described.raw_description), *_decoded(history)]
            )
        return found


def _decoded(history: object) -> Iterator[str]:
    """Decoded payloads: in JSON they are base64, which a search would miss."""
    for event in history.events:  # type: ignore[attr-defined]
        yield event.SerializeToString().decode("latin-1")


def _process(pid: int) -> tuple[bytes, bytes]:
    process = Path(f"/proc/{pid}")
    return (process / "cmdline").read_bytes(), (process / "environ").read_bytes()


def _processes_with(mark: str) -> list[Path]:
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(process)
        except OSError:
            continue
    return found


def canaries_in(data: str | bytes) -> set[str]:
    raw = data.encode(errors="replace") if isinstance(data, str) else data
    return {name for name, canary in CANARIES.items() if canary.encode() in raw}


def open_to_others(state: Path) -> list[str]:
    """Files of the folder that other users can read; a link counts as its target."""
    paths = [path for path in [state, *state.rglob("*")] if not path.is_symlink()]
    return [str(path) for path in paths if path.stat().st_mode & 0o077]


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_no_secret_is_left_anywhere(planted: DevStack) -> None:
    life = Life(planted)
    await life.live()

    # The instance has its secrets; without them this test could not find any.
    assert f"HF_TOKEN={CANARIES['reference']}" in life.environments
    assert f"OTHER_TOKEN={CANARIES['plain']}" in life.environments

    # Arguments hold no secret; environments only those of the process's role.
    for name, (arguments, environment) in life.processes.items():
        assert canaries_in(arguments) == set(), name
        assert canaries_in(environment) == HELD_BY[name], name

    # Answers and what the command prints.
    assert len(life.said) > 20
    for name, text in life.said.items():
        assert canaries_in(text) == set(), (name, text)

    # Temporal: histories, memos, search attributes.
    histories = await life.histories()
    assert any("endpoint/canary" in name for name in histories)
    assert any("planted" in text for text in histories.values())
    for name, text in histories.items():
        assert canaries_in(text) == set(), name

    # Files: logs, databases, settings. `client.toml` is for the CLI. The marketplace may store the template's plain value.
    state = planted.state_dir
    kept = {state / "settings.json": {"plain"}, state / "client.toml": {"account"}}
    written = [path for path in state.rglob("*") if path.is_file()]
    assert {"temporal.db", "settings.json", "market.sqlite", "engine.log", "worker.log"} <= {
        path.name for path in written
    }
    for path in written:
        allowed = kept.get(path, set())
        if path.name.startswith("market.sqlite"):
            allowed = {"plain", "reference"}  # given to its instances, which may be started again with it
        assert canaries_in(path.read_bytes()) <= allowed, path
    assert b"canary" in (state / "temporal.db").read_bytes() + b"".join(
        path.read_bytes() for path in written if path.name == "temporal.db-wal"
    )

    # No other user can read any of the files.
    assert open_to_others(state) == []
