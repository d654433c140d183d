"""The faults: the action, the process, and the duration."""

import asyncio
import contextlib
import functools
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from temporalio.api.workflowservice.v1 import ListBatchOperationsRequest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.service import RPCError

from benchmarks.faults import model_cases
from benchmarks.faults.stage import Stage
from run.demo.chaos import instance_pid
from run.state_folder.lock import free_port
from stoker_wire.control import SWEEP_ID
from tests.attack.pages import BATCH_BODY, BATCH_PATH, Attacker, visit

STOP_SECONDS = 30.0
CUT_SECONDS = 45.0
"""Longer than the engine trusts a worker without reports, seconds."""
LISTED_SECONDS = 130.0
"""Longer than the interval between two listings of a steady endpoint, seconds."""
FULL_SECONDS = 20.0
RELEASED_SECONDS_MAX = 60.0
"""Time for the sweep to release the machines of a cancelled or terminated endpoint, seconds."""
ASLEEP_SECONDS = 120.0
"""Longer than every interval after which a silent worker is repaired; shorter than the clients' timeout, seconds."""
LONG_SECONDS = 90.0
STREAM_SECONDS = 30.0
"""Longer than the interval of health probes, seconds."""
SWEEP_SECONDS = 2.0
"""Sweep settings of the second deployment: it looks for orphans at once and then every few seconds."""
_CHUNK = b"\0" * 65536

PARTS = {
    "temporal-worker": "worker",
    "engine": "engine",
    "temporal-server": "temporal",
    "marketplace": "market",
}
"""Processes of the deployment, by the name of the child."""
PROGRAMS = {"pyworker": "worker.py", "model-server": "model_server.py"}
"""Processes on an instance, by their program."""


@dataclass(frozen=True, slots=True)
class Case:
    """One fault. `strike` returns the time from which recovery counts: the kill, or the end of the fault."""

    name: str
    what: str
    strike: Callable[[Stage], Awaitable[float]]
    disk: bool = False
    """Needs its own small disk."""
    browser: bool = False
    """Needs a Chromium."""


async def _pid(stage: Stage, target: str) -> int:
    return stage.stack.pids[PARTS[target]] if target in PARTS else await stage.victim(PROGRAMS[target])


def _kill(target: str) -> Case:
    async def strike(stage: Stage) -> float:
        os.kill(await _pid(stage, target), signal.SIGKILL)
        return time.monotonic()

    return Case(f"kill-{target}", f"kill -9 of the {target.replace('-', ' ')}", strike)


def _stop(target: str, seconds: float) -> Case:
    async def strike(stage: Stage) -> float:
        pid = await _pid(stage, target)
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until:
                # repeated: a marketplace without cgroups resumes its instances with SIGCONT
                try:
                    os.kill(pid, signal.SIGSTOP)
                except ProcessLookupError:  # its worker was scaled down meanwhile
                    pid = await _pid(stage, target)
                await asyncio.sleep(0.02 if target in PROGRAMS else 0.5)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        return time.monotonic()

    return Case(f"stop-{target}", f"SIGSTOP of the {target.replace('-', ' ')} for {seconds:.0f} s", strike)


def _cut(how: str, seconds: float) -> Case:
    async def strike(stage: Stage) -> float:
        stage.wire.cut(how)  # type: ignore[arg-type]
        try:
            await asyncio.sleep(seconds)
        finally:
            stage.wire.cut("")
        return time.monotonic()

    words = {"refused": "connections refused", "silent": "packets vanish"}
    return Case(
        f"cut-{how}", f"network cut between workers and engine for {seconds:.0f} s, {words[how]}", strike
    )


async def _cancel(stage: Stage) -> float:
    """ "Request cancellation" in the Temporal UI: the endpoint is deleted, and its workflow ends as cancelled."""
    handle = await stage.second_endpoint("cancelled")
    struck_at = time.monotonic()
    await handle.cancel()
    await stage.until_released("cancelled")
    with contextlib.suppress(WorkflowFailureError):  # the outcome is checked below
        await asyncio.wait_for(handle.result(), RELEASED_SECONDS_MAX)
    status = (await handle.describe()).status
    assert status is WorkflowExecutionStatus.CANCELED, f"it ended as {status}"
    return struck_at


async def _terminate(stage: Stage) -> float:
    """Select an endpoint and the sweep, terminate: no workflow is left that could release the endpoint's machine."""
    handle = await stage.second_endpoint("terminated")
    struck_at = time.monotonic()
    await handle.terminate("terminated in the UI")
    with contextlib.suppress(RPCError):  # it was not running at this moment
        await stage.temporal.get_workflow_handle(SWEEP_ID).terminate("terminated in the UI")
    await stage.until_released("terminated", seconds_max=RELEASED_SECONDS_MAX)
    return struck_at


async def _edit_labels(stage: Stage, seconds: float) -> float:
    """Someone edits the labels of all instances in the marketplace's console, and puts them back later."""
    labels = {one.id: one.label for one in await stage.market.list()}
    assert labels, "no instance is there"
    try:
        for instance_id in labels:
            await stage.relabel(instance_id, f"do not touch {instance_id}")
        await _live_without_a_change(stage, labels, seconds)
    finally:
        for instance_id, label in labels.items():
            await stage.relabel(instance_id, label or "")
    return time.monotonic()


async def _empty_lists(stage: Stage, seconds: float) -> float:
    """Every list of instances is empty."""
    ids = [one.id for one in await stage.market.list()]
    assert ids, "no instance is there"
    await stage.host("POST", "/host/faults/", {"fault": "list_empty", "times": None})
    try:
        await _live_without_a_change(stage, ids, seconds)
    finally:
        await stage.host("DELETE", "/host/faults/")
    return time.monotonic()


async def _live_without_a_change(stage: Stage, ids: Iterable[int], seconds: float) -> None:
    await asyncio.sleep(seconds)
    workers = {worker.id for worker in await stage.client.endpoints.workers(stage.endpoint.id)}
    assert workers == set(ids), f"the workers were {sorted(ids)} before, they are {sorted(workers)} now"


async def _open_hostile_page(stage: Stage) -> float:
    """A page of another origin, in a browser on this machine, sends requests to every port of the deployment."""
    found = {(one.host, one.port) for one in stage.stack.listening() or []}
    assert len(found) > len(PARTS), "the deployment's ports are not known"
    keys = stage.stack.keys
    assert keys is not None
    settings = stage.stack.settings
    fault, endpoint = '{"fault": "server_error", "times": 1000}', '{"endpoint_name": "of-a-page"}'
    by_port = {
        settings.host_market.port: (f"/host/faults/?api_key={keys.market_key}", fault),
        settings.engine.port: (f"/api/v0/endptjobs/?api_key={keys.account_key}", endpoint),
    }
    targets: list[dict[str, object]] = []
    for host, port in sorted(found):
        path, body = by_port.get(port, (BATCH_PATH, BATCH_BODY))
        targets.append({"name": path, "host": host, "port": port, "path": path, "body": body})
    attacker = Attacker(targets)
    with tempfile.TemporaryDirectory(prefix="stoker-browser-", ignore_cleanup_errors=True) as profile:
        try:
            await visit(await attacker.open(), Path(profile), attacker.said)
        finally:
            await attacker.close()
    assert {method for method, _, _ in attacker.arrived} >= {"GET", "POST"}, "the page sent nothing"
    batches = await stage.temporal.workflow_service.list_batch_operations(
        ListBatchOperationsRequest(namespace=stage.temporal.namespace)
    )
    assert not batches.operation_info, "a page started a batch of signals"
    assert [one.endpoint_name for one in await stage.client.endpoints.list()] == [stage.endpoint.name], (
        "a page made an endpoint"
    )
    key = {"Authorization": f"Bearer {keys.market_key}"}
    armed = await stage.http.get(f"{stage.stack.settings.market_url}/host/faults/", headers=key)
    assert "server_error" not in armed.text, "a page armed a fault of the marketplace"
    return time.monotonic()


async def _fill_disk(stage: Stage, *, kill: bool = False) -> float:
    ballast = stage.stack.state_dir / "ballast"
    try:
        await asyncio.to_thread(_fill, ballast)
        assert shutil.disk_usage(ballast.parent).free == 0, "the disk is not full"
        if kill:
            for pid in stage.stack.pids.values():
                os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + FULL_SECONDS
        while time.monotonic() < until:
            await asyncio.sleep(0.5)
            await asyncio.to_thread(_fill, ballast)  # space that was freed in the meantime is filled, too
    finally:
        ballast.unlink(missing_ok=True)
    return time.monotonic()


def _fill(ballast: Path) -> None:
    with ballast.open("ab", buffering=0) as file:
        for chunk in (_CHUNK, b"\0" * 512):
            with contextlib.suppress(OSError):
                while file.write(chunk):
                    pass


async def _second_deployment(stage: Stage) -> float:
    """A second deployment with the same account starts, sweeps at once, runs `panic`, and ends."""
    folder = stage.stack.state_dir.parent / "second"
    config = _settings(stage, folder, market={"kind": "vast", "url": stage.stack.settings.market_url})
    assert stage.stack.keys is not None
    environment = os.environ | {"STOKER_MARKET_KEY": stage.stack.keys.market_key}
    before = {(one.id, one.label) for one in await stage.market.list()}
    log = folder / "output"
    with log.open("wb") as output:
        second = await asyncio.create_subprocess_exec(
            *_stokerd("dev", config), stdout=output, stderr=output, env=environment
        )
    try:
        async with asyncio.timeout(90):
            while b"Ctrl-C stops" not in log.read_bytes():
                assert second.returncode is None, log.read_text()
                await asyncio.sleep(0.2)
        await asyncio.sleep(5 * SWEEP_SECONDS)
        panic = await asyncio.create_subprocess_exec(
            *_stokerd("panic", config, "--yes"), stdout=asyncio.subprocess.PIPE, env=environment
        )
        said = (await panic.communicate())[0].decode()
        assert panic.returncode == 0, said
        assert f"instances of the deployment {stage.stack.deployment}" in said, said
    finally:
        if second.returncode is None:
            second.terminate()
        await second.wait()
    after = {(one.id, one.label) for one in await stage.market.list()}
    assert before <= after, f"instances of the first deployment are gone: {before - after}"
    return time.monotonic()


async def _copied_folder(stage: Stage) -> float:
    """A copy of the state folder is started: `stokerd dev` refuses, and the marketplace alone touches nothing."""
    folder = stage.stack.state_dir.parent / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    await asyncio.to_thread(shutil.copytree, stage.stack.state_dir, folder / "state")
    config = _settings(stage, folder)
    before = {(one.id, one.label) for one in await stage.market.list()}
    pids = {number: instance_pid(stage.stack.state_dir, number, "worker.py") for number, _ in before}
    dev = await asyncio.create_subprocess_exec(*_stokerd("dev", config), stderr=asyncio.subprocess.PIPE)
    said = (await dev.communicate())[1].decode()
    assert (dev.returncode, "is a copy: " in said, "kill " in said) == (3, True, False), said
    market = await asyncio.create_subprocess_exec(*_stokerd("market", config), stderr=asyncio.subprocess.PIPE)
    assert market.stderr is not None
    try:
        async with asyncio.timeout(60):
            while line := await market.stderr.readline():
                if b"market.listening" in line:
                    break
        await asyncio.sleep(3.0)
    finally:
        if market.returncode is None:
            market.terminate()
        await market.communicate()
    after = {number: instance_pid(stage.stack.state_dir, number, "worker.py") for number in pids}
    assert after == pids, f"processes of the original's instances changed: {pids} -> {after}"
    return time.monotonic()


def _settings(stage: Stage, folder: Path, **changes: object) -> Path:
    """The stage's settings on other ports, with the state folder `state` beside the file."""
    folder.mkdir(mode=0o700, exist_ok=True)
    said = stage.stack.settings.model_dump(mode="json", exclude={"host_market"}) | changes
    said["state_dir"] = "state"
    said["temporal"] |= {"port": free_port(), "ui_port": None}
    said["engine"] |= {"port": free_port(), "public_url": None}
    said["host_market"] = {"port": free_port()}
    said["sweep"] = {"every_seconds": SWEEP_SECONDS, "young_seconds": 0.0}
    path = folder / "stoker.json"
    path.write_text(json.dumps(said))
    return path


def _stokerd(command: str, config: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "run", command, "--config", str(config), *more]


def cases(*, quick: bool = False) -> list[Case]:
    """All faults in the order of the run; `quick` shortens their durations."""
    stop, cut, listed = (5.0, 8.0, 10.0) if quick else (STOP_SECONDS, CUT_SECONDS, LISTED_SECONDS)
    asleep, long, stream = (45.0, 15.0, 6.0) if quick else (ASLEEP_SECONDS, LONG_SECONDS, STREAM_SECONDS)
    targets = ["temporal-worker", "engine", "pyworker", "model-server", "temporal-server", "marketplace"]
    return [
        *(_kill(target) for target in targets),
        *(_stop(target, stop) for target in targets),
        _cut("refused", cut),
        _cut("silent", cut),
        Case(
            "label-edited",
            f"the labels of all instances are edited for {listed:.0f} s",
            functools.partial(_edit_labels, seconds=listed),
        ),
        Case(
            "list-empty",
            f"the marketplace's list is empty for {listed:.0f} s",
            functools.partial(_empty_lists, seconds=listed),
        ),
        Case(
            "poison-request",
            "a request crashes the model of every worker that it reaches",
            model_cases.poison_request,
        ),
        Case("idle-crash", "kill -9 of the model server of an idle worker", model_cases.idle_crash),
        Case(
            "long-request",
            f"a request of {long:.0f} s on an endpoint with an inactivity timeout of {long / 6:.1f} s",
            functools.partial(model_cases.long_request, seconds=long),
        ),
        Case(
            "serial-probes",
            f"streams of {stream:.0f} s from a serial model server whose streams end when it is probed",
            functools.partial(model_cases.serial_probes, seconds=stream),
        ),
        Case(
            "asleep",
            f"every process of the deployment stops for {asleep:.0f} s",
            functools.partial(model_cases.sleep, seconds=asleep),
        ),
        Case("ui-cancel", "an endpoint's workflow is cancelled in the Temporal UI", _cancel),
        Case(
            "ui-terminate",
            "an endpoint's workflow and the sweep are terminated in the Temporal UI",
            _terminate,
        ),
        Case(
            "two-deployments",
            "a second deployment on the same account starts, sweeps and panics",
            _second_deployment,
        ),
        Case("copied-folder", "a copy of the state folder is started on the same machine", _copied_folder),
        Case(
            "hostile-page",
            "a web page in a browser of this machine attacks every port",
            _open_hostile_page,
            browser=True,
        ),
        Case("disk-full", f"the disk of the state is full for {FULL_SECONDS:.0f} s", _fill_disk, disk=True),
        Case(
            "disk-full-kill",
            f"the disk of the state is full for {FULL_SECONDS:.0f} s, and every process of the deployment is killed",
            functools.partial(_fill_disk, kill=True),
            disk=True,
        ),
    ]
