"""A whole deployment for these tests, and the official package in a separate environment."""

import asyncio
import concurrent.futures
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from hosts.settings import GpuSettings, MachineSettings, TemplateSettings
from run.commands.dev import DevStack
from run.settings import DeploymentSettings, EngineListen, HostMarket, TemporalSettings
from run.state_folder.lock import free_port
from tests.environments import python_of

ROOT = Path(__file__).parents[3]
PEER_DIR = Path(__file__).parents[1] / "peer"

Value = TypeVar("Value")


def peer_python() -> Path:
    """The interpreter of the official package's environment."""
    return python_of("peer")


def free_ports(count: int) -> list[int]:
    """Ports that are free now, all different."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


def worker_processes(instance_id: int) -> list[int]:
    """Pids of the worker (not of the model server) that these tests had started on an instance."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if not folder.name.isdigit() or not any(word.endswith(b"worker.py") for word in words):
                continue
            environment = (folder / "environ").read_bytes().split(b"\0")
            if {f"CONTAINER_ID={instance_id}".encode(), f"PEER_DIR={PEER_DIR}".encode()} <= set(environment):
                found.append(int(folder.name))
    return found


def until(true: Callable[[], Value], *, seconds_max: float, what: str) -> Value:
    """The first true value of the condition."""
    deadline = time.monotonic() + seconds_max
    while True:
        value = true()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds_max:.0f} s (last: {value!r})")
        time.sleep(0.1)


@dataclass(frozen=True)
class Printed:
    """The output of a command, and its exit code."""

    out: str
    err: str
    code: int

    @property
    def json(self) -> Any:
        """The output as JSON (`--raw`)."""
        try:
            return json.loads(self.out)
        except ValueError:
            raise AssertionError(f"not JSON: {self}") from None


class Deployment:
    """`stokerd dev` on free ports with its own state folder, run by a thread so that tests may be plain functions."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder = folder
        self.python = python
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="deployment")
        temporal, engine, market = free_ports(3)
        self.settings = DeploymentSettings(
            state_dir=folder / "state",
            temporal=TemporalSettings(port=temporal, ui_port=None, db_filename=None),
            engine=EngineListen(port=engine),
            host_market=HostMarket(
                port=market,
                gpus=GpuSettings(enabled=False),
                machines=(
                    MachineSettings(
                        name="CPU_S",
                        count=16,
                        cpu_percent=60,
                        dollars_per_hour=0.1,
                        min_bid_dollars_per_hour=0.03,
                        dlperf=12,
                    ),
                ),
                templates=self._templates(engine),
                stop_grace_seconds=2.0,
            ),
        )
        self.stack = DevStack(self.settings)
        self._cli: subprocess.Popen[str] | None = None
        self.http = httpx.Client(timeout=30, trust_env=False)

    def _templates(self, engine: int) -> tuple[TemplateSettings, ...]:
        theirs = f"-p 3000:3000 -e PEER_DIR={PEER_DIR} -e WORKER_PYTHON={self.python}"
        ours = f"-p 3000:3000 -e PEER_DIR={PEER_DIR} -e WORKER_PYTHON={sys.executable}"
        start = f"bash {PEER_DIR}/start.sh"
        tls = f"-e USE_SSL=true -e CONSOLE=http://127.0.0.1:{engine} -e PYTHONPATH={PEER_DIR}/tls"
        with_dataset = f"-e WORKER_FILE={PEER_DIR}/dataset_worker.py"
        return tuple(
            TemplateSettings(name=name, hash_id=name, env=env, onstart=start, recommended_disk_space=8)
            for name, env in {
                "theirs": theirs,
                "theirs-dataset": f"{theirs} {with_dataset}",
                "theirs-tls": f"{theirs} {tls}",
                "ours": f"{ours} -e WORKER_FILE={self.moved('worker.py')}",
                "ours-dataset": f"{ours} -e WORKER_FILE={self.moved('dataset_worker.py')}",
            }.items()
        )

    def moved(self, name: str) -> Path:
        """The worker file with the package's name changed in its import line, and nothing else."""
        text = (PEER_DIR / name).read_text()
        line = next(line for line in text.splitlines() if line.startswith("from vastai import"))
        path = self.folder / name
        path.write_text(text.replace(line, line.replace("from vastai", "from stoker_pyworker"), 1))
        return path

    # -- start and stop

    def start(self) -> None:
        """Start everything; returns when it is ready."""
        self._thread.start()
        self.call(self.stack.start(), seconds_max=90)

    def stop(self) -> None:
        """End everything."""
        try:
            self._end_cli()
            self.call(self.stack.stop(), seconds_max=90)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()
            self.http.close()

    def call(self, work: Coroutine[Any, Any, Value], *, seconds_max: float = 30) -> Value:
        """Run a coroutine where the deployment lives."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds_max)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise

    # -- paths and addresses

    @property
    def engine(self) -> str:
        return self.settings.engine.url

    @property
    def market(self) -> str:
        return self.settings.market_url

    @property
    def key(self) -> str:
        assert self.stack.keys is not None
        return self.stack.keys.account_key

    @property
    def market_key(self) -> str:
        assert self.stack.keys is not None
        return self.stack.keys.market_key

    # -- stoker's own view

    def api(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Any:
        """A call of the engine with the account key; answers the JSON."""
        headers = {"Authorization": f"Bearer {key or self.key}"}
        answer = self.http.request(method, self.engine + path, json=body, headers=headers)
        assert answer.status_code == 200, (method, path, answer.status_code, answer.text)
        return answer.json()

    def create(self, name: str, template: str, *, search: Any = "num_gpus=1", **parameters: Any) -> int:
        """An endpoint with one workergroup."""
        wanted = {"min_load": 1.0, "cold_workers": 1, "max_workers": 1, "cold_mult": 1.0} | parameters
        number: int = self.api("POST", "/api/v0/endptjobs/", {"endpoint_name": name, **wanted})["result"]
        group = {
            "endpoint_id": number,
            "template_hash": template,
            "search_params": search,
            "gpu_ram": 0,
        }
        self.api("POST", "/api/v0/workergroups/", {**group, "test_workers": 0})
        return number

    def workers(self, endpoint_id: int) -> list[dict[str, Any]]:
        """The endpoint's worker rows."""
        rows: list[dict[str, Any]] = self.api("POST", "/get_endpoint_workers/", {"id": endpoint_id})
        return rows

    def ready(self, endpoint_id: int, count: int = 1, *, seconds_max: float = 60) -> list[dict[str, Any]]:
        """The ready workers, once there are so many."""

        def idle() -> list[dict[str, Any]]:
            found = [
                row
                for row in self.workers(endpoint_id)
                if row["status"] == "idle" and row["measured_perf"] > 0
            ]
            return found if len(found) >= count else []

        try:
            return until(idle, seconds_max=seconds_max, what=f"{count} ready workers of {endpoint_id}")
        except AssertionError as fault:
            raise AssertionError(f"{fault}\n{self.story(endpoint_id)}") from None

    def story(self, endpoint_id: int) -> str:
        """State for a failure report: workers, decisions, the ends of the instances' logs."""
        said = [json.dumps(self.workers(endpoint_id), indent=1)]
        said += self.api("POST", "/get_endpoint_logs/", {"id": endpoint_id})["info1"].splitlines()[-20:]
        for row in self.workers(endpoint_id):
            log = self.settings.state_dir / "market" / "instances" / str(row["id"])
            for path in sorted(log.rglob("*.log")):
                said.append(f"--- {path}\n" + path.read_text(errors="replace")[-1500:])
        return "\n".join(said)

    def instance(self, number: int) -> dict[str, Any] | None:
        """The instance as the marketplace shows it."""
        headers = {"Authorization": f"Bearer {self.market_key}"}
        answer = self.http.get(f"{self.market}/api/v0/instances/{number}/", headers=headers)
        row: dict[str, Any] | None = answer.json()["instances"]
        return row

    def instances(self) -> list[dict[str, Any]]:
        """Every instance that the marketplace lists."""
        headers = {"Authorization": f"Bearer {self.market_key}"}
        rows: list[dict[str, Any]] = self.http.get(
            f"{self.market}/api/v0/instances/", headers=headers
        ).json()["instances"]
        return rows

    def environment_of(self, number: int) -> dict[str, str]:
        """The instance's environment."""
        row = self.instance(number)
        assert row is not None
        return dict(row["extra_env"])

    # -- the official package

    def peer_env(self, **more: str) -> dict[str, str]:
        """A separate home folder, so that no user's key file is read."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "VASTAI_NO_UPDATE_CHECK": "1",
            **more,
        }

    def script(self, name: str, *, seconds_max: float = 90, **settings: Any) -> dict[str, dict[str, Any]]:
        """Run `peer/<name>` in the peer environment; answers its cases by name."""
        command = self._command(name, settings)
        ran = subprocess.run(
            command, env=self.peer_env(), capture_output=True, text=True, timeout=seconds_max, check=False
        )
        assert ran.returncode == 0, ran.stderr[-3000:]
        lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
        return {line["case"]: line for line in lines}

    def begin(self, name: str, **settings: Any) -> subprocess.Popen[str]:
        """Starts `peer/<name>`; its output can be read line by line."""
        command = self._command(name, settings)
        return subprocess.Popen(command, env=self.peer_env(), stdout=subprocess.PIPE, text=True)

    def _command(self, name: str, settings: dict[str, Any]) -> list[str]:
        given = {"engine": self.engine, "key": self.key, "market": self.market, "cases": None, **settings}
        return [str(self.python), str(PEER_DIR / name), json.dumps(given)]

    def vastai(self, *words: str, url: str | None = None, key: str | None = None) -> "Printed":
        """Run one command of the official CLI."""
        if self._cli is None:
            self._cli = subprocess.Popen(
                [str(self.python), str(PEER_DIR / "cli.py")],
                env=self.peer_env(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._cli.stdin is not None
        assert self._cli.stdout is not None
        command = ["--url", url or self.engine, "--api-key", key or self.key, *words]
        self._cli.stdin.write(json.dumps(command) + "\n")
        self._cli.stdin.flush()
        return Printed(**json.loads(self._cli.stdout.readline()))

    def _end_cli(self) -> None:
        if self._cli is not None:
            self._cli.communicate(timeout=20)


class Benchmarks:
    """`vastai run benchmarks`, running beside the tests: it looks every ten seconds."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        command = [str(deployment.python.parent / "vastai"), "--url", deployment.engine]
        command += ["--api-key", deployment.key, "run", "benchmarks", "--template_hash", "theirs"]
        command += ["--gpus", "CPU_S", "--timeout", "120", "--yes", "--raw"]
        self._printed = deployment.folder / "benchmarks.txt"
        with self._printed.open("w") as printed:
            self._process = subprocess.Popen(
                command, env=deployment.peer_env(), stdout=printed, stderr=printed
            )

    def rows(self, *, seconds_max: float = 150) -> list[dict[str, Any]]:
        """Its results, after its end."""
        self._process.wait(seconds_max)
        said = self._printed.read_text()
        start = said.find("\n[\n")
        assert start >= 0, f"no rows:\n{said}"
        rows: list[dict[str, Any]] = json.JSONDecoder().raw_decode(said[start + 1 :])[0]
        return rows

    def end(self) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(20)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Deployment]:
    """A deployment for the time of a test session."""
    deployment = Deployment(folder, peer_python())
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.stop()
