"""`stokerd dev` as a user runs it: state survives, Ctrl-C ends everything, obstacles are named."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest

import stoker
from run.state_folder.keys import load_keys

from .conftest import QUICK, ROUTE, SECONDS_MAX, TEXT_MODEL, payload, settings_in, until

pytestmark = pytest.mark.timeout(900)  # several starts of a deployment, on a machine that may be busy


class Stokerd:
    """A `stokerd dev` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "settings.json"
        if not self.config.exists():
            self.settings = settings_in(folder / "state")
            self.config.write_text(self.settings.model_dump_json())
        self.process: asyncio.subprocess.Process | None = None
        self.output = folder / "output"

    async def start(self, **environment: str) -> None:
        with self.output.open("wb") as output:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "run", "dev", "--config", str(self.config)),
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **environment},
            )

    async def ready(self, **environment: str) -> None:
        await self.start(**environment)
        await until(
            lambda: b"Ctrl-C stops" in self.output.read_bytes() or self.process.returncode is not None
        )
        assert self.process.returncode is None, self.output.read_text()

    async def interrupted(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return await asyncio.wait_for(self.process.wait(), SECONDS_MAX)

    def started_pids(self) -> set[int]:
        """Every process whose command line or environment names this deployment's folder."""
        marks = str(self.folder).encode()
        found = set()
        for process in Path("/proc").iterdir():
            if not process.name.isdigit() or int(process.name) == os.getpid():
                continue
            try:
                texts = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
                inside = (process / "cwd").readlink().is_relative_to(self.folder)
            except OSError:
                continue
            if inside or any(marks in text for text in texts):
                found.add(int(process.name))
        return found


@pytest.fixture
async def stokerd(tmp_path):
    stokerd = Stokerd(tmp_path)
    yield stokerd
    if stokerd.process and stokerd.process.returncode is None:
        stokerd.process.kill()
        await stokerd.process.wait()


async def test_the_state_survives_a_restart_and_ctrl_c_leaves_no_process_behind(stokerd, tmp_path):
    await stokerd.ready()
    key = load_keys(tmp_path / "state", generate=False).account_key
    url = stokerd.settings.engine.url
    async with stoker.Serverless(key, url=url) as client:
        made = await client.endpoints.create("kept", **QUICK)
        await client.workergroups.create(made.id, **TEXT_MODEL)
        endpoint = await client.get_endpoint("kept")
        before = await endpoint.request(ROUTE, payload(4), cost=4, timeout=60)
    assert len(stokerd.started_pids()) >= 5
    assert await stokerd.interrupted() == 0
    assert stokerd.started_pids() == set()

    await stokerd.ready()
    async with stoker.Serverless(key, url=url) as client:
        assert (await client.endpoints.get("kept")).id == made.id
        endpoint = await client.get_endpoint("kept")
        after = await endpoint.request(ROUTE, payload(4), cost=4, timeout=90)
        assert after.worker_id == before.worker_id
    assert await stokerd.interrupted() == 0
    assert stokerd.started_pids() == set()


async def test_a_second_deployment_on_the_same_state_is_refused_with_what_to_do(stokerd, tmp_path):
    await stokerd.ready()
    second = Stokerd(tmp_path)
    second.output = tmp_path / "second"
    await second.start()
    assert await asyncio.wait_for(second.process.wait(), SECONDS_MAX) == 3
    said = second.output.read_text()
    assert f"in use by stokerd, pid {stokerd.process.pid}" in said
    assert "Traceback" not in said
    assert await stokerd.interrupted() == 0


async def test_a_port_in_use_is_named(stokerd):
    port = stokerd.settings.engine.port
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
    await stokerd.start()
    assert await asyncio.wait_for(stokerd.process.wait(), SECONDS_MAX) == 3
    said = stokerd.output.read_text()
    assert f"port {port} on 127.0.0.1 is in use" in said
    assert "engine.port" in said
    assert "Traceback" not in said
    server.close()
    await server.wait_closed()


async def test_a_port_in_use_is_named_by_the_marketplace_alone_too_and_no_instance_is_touched(stokerd):
    settings = stokerd.settings
    load_keys(settings.state_dir, generate=True)
    with socket.create_server(("127.0.0.1", settings.host_market.port)):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "run", "market", "--config", stokerd.config, stderr=asyncio.subprocess.PIPE
        )
        _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 3
    assert b"change host_market.port" in said
    assert b"Traceback" not in said
    assert not (settings.state_dir / "market").exists(), "it did not begin"


async def test_a_state_folder_that_is_a_file_is_one_sentence(stokerd):
    data = json.loads(stokerd.config.read_text())
    data["state_dir"] = str(stokerd.config)
    other = stokerd.config.with_suffix(".other")
    other.write_text(json.dumps(data))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "run", "dev", "--config", other, stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 3
    assert b"cannot be created" in said
    assert b"Traceback" not in said


async def test_a_wrong_setting_ends_with_exit_code_2_and_one_sentence(stokerd):
    data = json.loads(stokerd.config.read_text())
    data["engine"]["port"] = 99_999
    stokerd.config.write_text(json.dumps(data))
    await stokerd.start()
    assert await asyncio.wait_for(stokerd.process.wait(), SECONDS_MAX) == 2
    said = stokerd.output.read_text()
    assert "engine.port" in said
    assert "Traceback" not in said


DEAD = "127.0.0.1:9"
PROXIES = {
    "http": dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"), f"http://{DEAD}"),
    "socks": dict.fromkeys(("ALL_PROXY", "all_proxy", "HTTP_PROXY"), f"socks5://{DEAD}"),
}


@pytest.mark.parametrize("kind", PROXIES)
async def test_a_proxy_of_the_environment_is_not_used_for_this_machine(stokerd, kind, tmp_path, monkeypatch):
    await stokerd.ready(**PROXIES[kind])
    said = stokerd.output.read_text()
    assert "this machine only: all " in said
    assert "Traceback" not in said
    for name, value in PROXIES[kind].items():
        monkeypatch.setenv(name, value)
    key = load_keys(tmp_path / "state", generate=False).account_key
    async with stoker.Serverless(key, url=stokerd.settings.engine.url) as client:
        assert await client.endpoints.list() == []
    assert await stokerd.interrupted() == 0


@pytest.fixture
def hangup_not_ignored():
    """A suite that runs under `nohup` ignores SIGHUP, and children inherit that."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup_not_ignored")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
async def test_a_signal_ends_everything_in_order_when_the_output_has_no_reader(stokerd, number):
    """`stokerd dev 2>&1 | tee`: Ctrl-C ends tee first, and the terminal's end (SIGHUP) takes the reader along."""
    read, write = os.pipe()
    stokerd.process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "run", "dev", "--config", str(stokerd.config)), stdout=write, stderr=write
    )
    os.close(write)
    with os.fdopen(read, "rb") as tee:
        # A StopIteration would never leave the thread's future.
        assert await asyncio.to_thread(lambda: any(b"Ctrl-C stops" in line for line in tee))
    assert len(stokerd.started_pids()) >= 5
    stokerd.process.send_signal(number)
    assert await asyncio.wait_for(stokerd.process.wait(), SECONDS_MAX) == 0
    assert stokerd.started_pids() == set()
    assert json.loads((stokerd.settings.state_dir / "children.json").read_text())["children"] == {}


async def test_a_deployment_whose_output_cannot_be_written_runs_and_ends_in_order(stokerd):
    full = os.open("/dev/full", os.O_WRONLY)
    with os.fdopen(full, "wb"), stokerd.output.open("wb") as errors:
        stokerd.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "run", "dev", "--config", str(stokerd.config)), stdout=full, stderr=errors
        )
    await until(lambda: b"output_not_written" in stokerd.output.read_bytes())
    assert await stokerd.interrupted() == 0
    assert b"Traceback" not in stokerd.output.read_bytes()
    assert stokerd.started_pids() == set()


async def test_a_copied_state_folder_runs_only_after_a_person_decided(stokerd, tmp_path):
    await stokerd.ready()
    assert await stokerd.interrupted() == 0
    original = json.loads((stokerd.settings.state_dir / "deployment.json").read_text())["deployment"]
    (tmp_path / "copy").mkdir()
    shutil.copytree(stokerd.settings.state_dir, tmp_path / "copy" / "state")
    copy = Stokerd(tmp_path / "copy")
    await copy.start()
    assert await asyncio.wait_for(copy.process.wait(), SECONDS_MAX) == 3
    assert f"identity --set {original}" in copy.output.read_text()
    command = (sys.executable, "-m", "run", "identity", "--config", str(copy.config), "--new")
    decided = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    identity = (await decided.communicate())[0].decode().strip()
    assert decided.returncode == 0
    assert identity != original
    await copy.ready()
    assert f"deployment   {identity}" in copy.output.read_text()
    assert await copy.interrupted() == 0
    await stokerd.ready()
    assert f"deployment   {original}" in stokerd.output.read_text()
    assert await stokerd.interrupted() == 0
