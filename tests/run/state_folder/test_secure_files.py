"""Only the owner can read a deployment's files, and each child process gets only the secrets that it needs."""

import asyncio
import json
import os
import sys

import pytest
import uvloop

from run.commands.dev import describe_exposure
from run.errors import CommandError
from run.processes.listening_sockets import ListeningSocket
from run.processes.supervisor import Child, ProcessSupervisor
from run.settings import DeploymentSettings
from run.state_folder.keys import environment_for, load_keys
from run.state_folder.lock import ChildRecord, StateLock
from run.state_folder.secure_files import write_private

SECRETS = {
    "STOKER_ACCOUNT_KEY": "account",
    "STOKER_HMAC_SECRET": "hmac",
    "STOKER_SIGNING_KEY_FILE": "/keys/signing",
    "STOKER_CA_KEY_FILE": "/keys/ca",
    "STOKER_MARKET_KEY": "market",
    "VAST_API_KEY": "vast",
    "STOKER_SECRET_HF_TOKEN": "hf",
    "STOKER_PROMETHEUS_AUTHORIZATION": "Bearer prometheus",
    "STOKER_API_KEY": "a client's",
}
SETTING = {"STOKER_TRACES": "/traces"}
STRANGERS = {"AWS_SECRET_ACCESS_KEY": "not ours", "PATH": "/bin"}


@pytest.mark.parametrize(
    ("role", "given"),
    [
        (None, set()),
        ("market", {"STOKER_MARKET_KEY", "VAST_API_KEY"}),
        ("worker", {"STOKER_HMAC_SECRET", "STOKER_MARKET_KEY", "VAST_API_KEY", "STOKER_SECRET_HF_TOKEN"}),
        ("dashboard", {"STOKER_ACCOUNT_KEY", "STOKER_PROMETHEUS_AUTHORIZATION"}),
        (
            "engine",
            set(SECRETS) - {"STOKER_SECRET_HF_TOKEN", "STOKER_API_KEY", "STOKER_PROMETHEUS_AUTHORIZATION"},
        ),
    ],
)
def test_a_child_gets_only_the_secrets_of_its_role(role, given):
    told = environment_for(role, SECRETS | SETTING | STRANGERS)
    assert set(told) & set(SECRETS) == given
    assert set(told) - set(SECRETS) == (set() if role is None else set(SETTING))


def test_a_role_is_given_its_own_keys_and_starts_without_the_others(tmp_path, monkeypatch):
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STOKER_MARKET_KEY", "market-key-of-the-test")
    market = load_keys(tmp_path, generate=False, role="market")
    assert market.market_key == "market-key-of-the-test"
    assert (market.secret, market.account_keys, market.signing_key_pem, market.named) == (b"", {}, "", {})
    with pytest.raises(CommandError, match="STOKER_HMAC_SECRET is not set"):
        load_keys(tmp_path, generate=False, role="worker")
    monkeypatch.setenv("STOKER_HMAC_SECRET", "a secret of the tests, 32 bytes!")
    monkeypatch.setenv("STOKER_SECRET_HF_TOKEN", "hf-canary")
    worker = load_keys(tmp_path, generate=False, role="worker")
    assert worker.named == {"HF_TOKEN": "hf-canary"}
    assert (worker.account_keys, worker.signing_key_pem) == ({}, "")
    with pytest.raises(CommandError, match="STOKER_ACCOUNT_KEY is not set"):
        load_keys(tmp_path, generate=False, role="engine")


def test_a_state_folder_that_others_may_look_into_is_closed_to_them(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    lock = StateLock(folder)
    lock.acquire()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "stokerd.lock").stat().st_mode & 0o777 == 0o600
    lock.release()


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_state_folder_that_others_may_write_to_is_refused(tmp_path, mode):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(CommandError, match="shared with other users.*separate state_dir"):
        StateLock(folder).acquire()
    assert folder.stat().st_mode & 0o7777 == mode


def test_a_file_that_was_readable_by_others_is_not_once_it_is_written(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text("older and longer than the new one")
    path.chmod(0o644)
    write_private(path, "{}")
    assert path.read_text() == "{}"
    assert path.stat().st_mode & 0o777 == 0o600
    ChildRecord(tmp_path).write({"self": os.getpid()})
    assert (tmp_path / "children.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_a_child_writes_is_its_owners_alone(tmp_path, loop):
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(_a_child_writes(tmp_path))


async def _a_child_writes(tmp_path):
    made = tmp_path / "made"
    log = tmp_path / "logs" / "child.log"
    script = (
        f"import pathlib, time; pathlib.Path({str(made)!r}).touch(); print('up', flush=True); time.sleep(600)"
    )
    supervisor = ProcessSupervisor()
    command = [sys.executable, "-c", script]
    await supervisor.start(Child(name="child", command=command, log_file=log, environment={}))
    try:
        async with asyncio.timeout(30):
            while b"up" not in log.read_bytes():
                await asyncio.sleep(0.01)
        modes = {path.name: path.stat().st_mode & 0o777 for path in (made, log, log.parent)}
        assert modes == {"made": 0o600, "child.log": 0o600, "logs": 0o700}
    finally:
        await supervisor.stop()


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1", "this machine only"),
        ("::1", "this machine only"),
        ("localhost", "this machine only"),
        ("0.0.0.0", "WARNING: the engine listens on 0.0.0.0 without TLS"),
        ("192.168.1.5", "WARNING: the engine listens on 192.168.1.5 without TLS"),
    ],
)
def test_the_banner_says_whether_the_network_can_reach_the_deployment(host, said):
    settings = DeploymentSettings.model_validate(json.loads(json.dumps({"engine": {"host": host}})))
    assert said in describe_exposure(settings, [ListeningSocket(1, "127.0.0.1", 8080)])
    assert said in describe_exposure(settings, None)


def test_a_deployment_names_each_socket_that_is_open_to_the_network():
    found = [
        ListeningSocket(1, "127.0.0.1", 8080),
        ListeningSocket(77, "0.0.0.0", 21000),
        ListeningSocket(78, "::", 21010),
    ]
    said = describe_exposure(DeploymentSettings(), found)
    assert "WARNING: open to the network: 0.0.0.0:21000 (pid 77), [::]:21010 (pid 78)" in said
    assert "all 1 listening sockets" in describe_exposure(DeploymentSettings(), found[:1])
    open_engine = DeploymentSettings.model_validate({"engine": {"host": "0.0.0.0"}})
    assert "also open to the network: 0.0.0.0:21000" in describe_exposure(open_engine, found)
