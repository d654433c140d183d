"""`stokerd dev`: runs Temporal, the host marketplace, the Temporal worker and the engine on this machine."""

import asyncio
import json
import os
import shlex
import shutil
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import httpx
import structlog
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from hosts.agent import proc
from run.errors import CommandError
from run.output import say
from run.processes.listening_sockets import ListeningSocket, listening_sockets
from run.processes.proxy_environment import proxy_environment
from run.processes.supervisor import Child, ProcessSupervisor
from run.processes.temporal_server import connect, dev_server_command, prepare
from run.processes.temporal_ui import GuardedUi, blocked_address
from run.roles.stopping import stop_event
from run.settings import DeploymentSettings, bracketed
from run.state_folder.identity import ensure_identity, require_original
from run.state_folder.keys import Keys, Role, environment_for, load_keys
from run.state_folder.lock import ChildRecord, StateLock, require_free
from run.state_folder.secure_files import write_private
from stoker_wire.control import MARKET_TASK_QUEUE, TASK_QUEUE
from stoker_wire.security.loopback import is_loopback

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

READY_SECONDS_MAX = 60.0
PREPARE_SECONDS_MAX = 120.0
"""Adding a search attribute to an older database takes the server up to a minute."""
LISTENING_CHECK_SECONDS = 15.0
"""Interval of checks for sockets that listen on the network."""
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SYSTEMROOT")


class DevStack:
    """A whole deployment on this machine, as supervised child processes."""

    def __init__(self, settings: DeploymentSettings) -> None:
        self.settings = settings
        self.state_dir = settings.state_dir
        self.supervisor = ProcessSupervisor()
        self._lock = StateLock(self.state_dir)
        self._record = ChildRecord(self.state_dir)
        self._effective = self.state_dir / "settings.json"
        self.keys: Keys | None = None
        self.deployment = ""
        """The deployment's identity; empty before the start."""
        self._ui: GuardedUi | None = None

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of running children, by name."""
        children = self.supervisor.children.values()
        return {child.name: child.pid for child in children if child.pid is not None}

    async def start(self) -> None:
        """Check the preconditions, start all processes in order, and return when all are ready.

        Raises:
            CommandError: the state folder or a port is in use, or a process did not become ready.
        """
        if self.settings.worker.deployment is not None:
            raise CommandError(
                "worker.deployment is for production: `stokerd dev` rolls out no build, so no workflow would run; remove it"
            )
        self._lock.acquire()
        try:
            require_original(self.state_dir)
            self._record.refuse_stale()
            require_free(self.settings.ports())
            self.keys = load_keys(self.state_dir, generate=True, uses_vast=self.settings.uses_vast)
            self.settings.notify.channels(os.environ)  # a missing secret is reported before anything starts
            self._write_effective()
            self._write_client()
            await self._start_children()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop all processes, the engine first and Temporal last."""
        if self._ui is not None:
            await self._ui.close()
        await self.supervisor.stop()
        try:
            self._record.write({})
        except OSError as fault:  # e.g. a full disk; the children are stopped already
            log.warning("children_not_recorded", error=str(fault))
        self._lock.release()

    async def client(self) -> Client:
        """A client of this deployment's Temporal."""
        return await connect(self.settings.temporal)

    async def _start_children(self) -> None:
        settings = self.settings
        temporal = settings.temporal
        ui = None if temporal.ui_port is None else blocked_address(temporal.ip)
        await self.supervisor.start(self._child("temporal", dev_server_command(settings, ui=ui)))
        if temporal.ui_port is not None and ui is not None:
            backend = f"http://{bracketed(ui[0])}:{ui[1]}"
            self._ui = await GuardedUi.start(temporal.ip, temporal.ui_port, backend)
        client = await self._while_alive("temporal", self._prepare_temporal())
        if settings.market.kind == "host":
            await self.supervisor.start(self._role("market", stop_seconds_max=30))
            await self._wait_for_ok(f"{settings.market_url}/healthz", "market")
        await self.supervisor.start(self._role("worker", stop_seconds_max=40))
        await self.supervisor.start(self._role("engine"))
        await self._wait_for_pollers(client)
        await self._wait_for_ok(f"{settings.engine.own_url}/readyz", "engine")
        if settings.dashboard.port is not None:
            await self.supervisor.start(self._role("dashboard"))
            await self._wait_for_ok(
                f"http://{bracketed(settings.dashboard.host)}:{settings.dashboard.port}/healthz", "dashboard"
            )
        self._record.write(self.pids)

    def listening(self) -> list[ListeningSocket] | None:
        """The listening TCP sockets of this process, its children and their instances; None without /proc."""
        return listening_sockets(proc.descendants(os.getpid()))

    async def _prepare_temporal(self) -> Client:
        temporal = self.settings.temporal
        try:
            client = await connect(temporal)
            await prepare(client, temporal)
        except RPCError as fault:
            raise CommandError(self._did_not_start("temporal", str(fault)), exit_code=4) from fault
        self.deployment = await ensure_identity(client, self.state_dir, own_server=True)
        return client

    async def _while_alive(self, name: str, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of the work, unless the child keeps exiting.

        Raises:
            CommandError: the child exited repeatedly; the message ends with the last lines of its log.
        """
        deadline = asyncio.get_running_loop().time() + READY_SECONDS_MAX + PREPARE_SECONDS_MAX
        task = asyncio.create_task(work)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=0.1)
                if not task.done():
                    self._check_alive(name, deadline)
            return await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _child(
        self, name: str, command: list[str], *, role: Role | None = None, stop_seconds_max: float = 10
    ) -> Child:
        return Child(
            name=name,
            command=command,
            log_file=self.state_dir / "logs" / f"{name}.log",
            environment=_environment(role),
            stop_seconds_max=stop_seconds_max,
        )

    def _role(self, role: Role, *, stop_seconds_max: float = 10) -> Child:
        command = [sys.executable, "-m", "run", role, "--config", str(self._effective)]
        return self._child(role, command, role=role, stop_seconds_max=stop_seconds_max)

    def _write_effective(self) -> None:
        # A template's environment may contain secrets.
        write_private(self._effective, json.dumps(self.settings.model_dump(mode="json"), indent=1))

    def _write_client(self) -> None:
        """The address and key for `stoker` in the same directory, so that nothing has to be exported."""
        assert self.keys is not None
        url, key = json.dumps(self.settings.engine.url), json.dumps(self.keys.account_key)
        write_private(self.state_dir / "client.toml", f"url = {url}\napi_key = {key}\n")

    async def _wait_for_ok(self, url: str, name: str) -> None:
        deadline = asyncio.get_running_loop().time() + READY_SECONDS_MAX
        async with httpx.AsyncClient(trust_env=False) as http:
            while True:
                try:
                    if (await http.get(url, timeout=5)).status_code == httpx.codes.OK:
                        return
                except httpx.TransportError:
                    pass
                self._check_alive(name, deadline)
                await asyncio.sleep(0.05)

    async def _wait_for_pollers(self, client: Client) -> None:
        deadline = asyncio.get_running_loop().time() + READY_SECONDS_MAX
        queues = [
            (TASK_QUEUE, TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW),
            (MARKET_TASK_QUEUE, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY),
        ]
        for queue, kind in queues:
            while True:
                answer = await client.workflow_service.describe_task_queue(
                    DescribeTaskQueueRequest(
                        namespace=client.namespace, task_queue=TaskQueue(name=queue), task_queue_type=kind
                    )
                )
                if answer.pollers:
                    break
                self._check_alive("worker", deadline)
                await asyncio.sleep(0.05)

    def _check_alive(self, name: str, deadline: float) -> None:
        child = self.supervisor.children[name]
        if child.restarts >= 3 or asyncio.get_running_loop().time() > deadline:
            raise CommandError(self._did_not_start(name), exit_code=4)

    def _did_not_start(self, name: str, reason: str = "") -> str:
        tail = log_tail(self.supervisor.children[name].log_file)
        message = f"the {name} did not start{f' ({reason})' if reason else ''}; the end of its log: {tail}"
        file = self.settings.temporal.db_filename
        if name == "temporal" and file is not None:
            message += (
                f". If {self.state_dir / file} is damaged, restore it from a backup, or move it away to start "
                "without endpoints: the sweep then destroys their instances"
            )
        return message


def log_tail(log_file: Path, *, lines: int = 2) -> str:
    """The last lines of a child's log, joined into one line."""
    try:
        with log_file.open("rb") as log:
            log.seek(max(0, log_file.stat().st_size - 16_384))
            text = log.read().decode(errors="replace")
    except OSError:
        return "(no log)"
    found = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(line[:500] for line in found[-lines:]) or "(empty)"


def _environment(role: Role | None) -> dict[str, str]:
    """The environment of a child: a few system variables, and stoker's for its role. Temporal gets no secrets."""
    kept = {key: value for key, value in os.environ.items() if key in _KEPT_VARIABLES}
    if role is not None:
        kept |= proxy_environment(os.environ)
    return kept | environment_for(role, os.environ)


async def run_dev(settings: DeploymentSettings, *, config: Path | None = None) -> None:
    """Run until SIGINT, SIGTERM or SIGHUP. `config` is the settings file, if the command named one."""
    stack = DevStack(settings)
    stopping = stop_event()
    starting = asyncio.create_task(stack.start())
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return
    await starting
    try:
        say(banner(stack))
        say(exports(settings, config))
        say("Ctrl-C stops everything; the state is kept")
        watch = asyncio.create_task(_watch_listeners(stack), name="listeners")
        await stopping.wait()
        watch.cancel()
    finally:
        say("stopping …")
        await stack.stop()


async def _watch_listeners(stack: DevStack) -> None:
    """Log a warning, once per socket, when an instance starts to listen on the network."""
    warned = {(one.host, one.port) for one in stack.listening() or []}
    while True:
        await asyncio.sleep(LISTENING_CHECK_SECONDS)
        for one in stack.listening() or []:
            if not one.is_loopback and (one.host, one.port) not in warned:
                warned.add((one.host, one.port))
                log.warning("dev.reachable_from_network", address=str(one), pid=one.pid)


def describe_exposure(settings: DeploymentSettings, found: list[ListeningSocket] | None) -> str:
    """One line on whether the deployment is reachable from the network. `found` are its sockets; None if unknown."""
    host = settings.engine.host
    outside = [one for one in found or [] if not one.is_loopback]
    if not is_loopback(host):
        others = [str(one) for one in outside if one.port != settings.engine.port]
        rest = (
            f"also open to the network: {', '.join(others)}"
            if others
            else "no other port is open to the network"
        )
        return (
            f"reach        WARNING: the engine listens on {host} without TLS: keys and worker tokens are readable on the "
            f"network. Put a TLS proxy in front of it (engine.public_url); {rest}"
        )
    if found is None:
        return "reach        this machine only, by the settings; this system cannot list the sockets of instances"
    if outside:
        named = ", ".join(f"{one} (pid {one.pid})" for one in outside)
        return f"reach        WARNING: open to the network: {named}; bind it to 127.0.0.1"
    return f"reach        this machine only: all {len(found)} listening sockets are on the loopback interface"


def banner(stack: DevStack) -> str:
    """Addresses and paths of the deployment, for the user."""
    settings = stack.settings
    lines = [f"deployment   {stack.deployment}", f"engine       {settings.engine.url}"]
    if (page := settings.dashboard.url) is not None:
        lines.append(f"dashboard    {page} (sign in with the account key)")
    if (ui := settings.temporal.ui_url) is not None:
        lines.append(f"Temporal UI  {ui}/namespaces/{settings.temporal.namespace}/workflows")
    lines.append(f"Temporal     {settings.temporal.address}, namespace {settings.temporal.namespace}")
    lines.append(f"marketplace  {settings.market_url}")
    lines.append(f"account key  in {stack.state_dir / 'keys.json'}")
    lines.append(f"logs         {stack.state_dir / 'logs'}")
    lines.append(describe_exposure(settings, stack.listening()))
    return "\n".join(lines)


def exports(settings: DeploymentSettings, config: Path | None, *, program: str = sys.argv[0]) -> str:
    """The line that prepares another terminal for `stoker`, with the command and the settings file of this one."""
    on_path = (
        Path(program).name != "stokerd"
        or Path(shutil.which("stokerd") or "").resolve() == Path(program).resolve()
    )
    key = ["stokerd" if on_path else program, "key"]
    if config is not None:
        key += ["--config", str(config)]
    return f"in a shell   export STOKER_URL={settings.engine.url} STOKER_API_KEY=$({shlex.join(key)})"
