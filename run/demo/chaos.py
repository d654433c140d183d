"""`stokerd demo --chaos`: kills the Temporal worker, the engine and a PyWorker during the burst."""

import asyncio
import os
import signal
from pathlib import Path

from rich.console import Console

import stoker
from run.commands.dev import DevStack
from run.demo.samples import HOT

PAUSE_SECONDS = 4.0


async def kill_each_once(
    stack: DevStack, client: stoker.Serverless, endpoint_id: int, console: Console
) -> None:
    """Kill each process once, while requests run."""
    for name in ("worker", "engine"):
        pid = stack.pids.get(name)
        if pid is not None:
            console.print(
                f"kill -9 the {'Temporal worker' if name == 'worker' else name}, pid {pid}", style="red"
            )
            os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(PAUSE_SECONDS)
    while True:
        try:
            workers = await client.endpoints.workers(endpoint_id)
        except stoker.StokerError:
            await asyncio.sleep(0.2)
            continue
        busy = [worker for worker in workers if worker.status in HOT]
        if busy and (pid := pyworker_pid(stack.state_dir, busy[0].id)) is not None:
            console.print(f"kill -9 the PyWorker of instance {busy[0].id}, pid {pid}", style="red")
            os.kill(pid, signal.SIGKILL)
            return
        await asyncio.sleep(0.2)


def pyworker_pid(state_dir: Path, instance_id: int) -> int | None:
    """The process of the instance's PyWorker."""
    return instance_pid(state_dir, instance_id, "worker.py")


def instance_pid(state_dir: Path, instance_id: int, program: str) -> int | None:
    """The process of this program on an instance of the deployment with this state folder, by its environment.

    Deployments beside each other have instances of the same ids.
    """
    disk = state_dir.absolute() / "market" / "instances" / str(instance_id) / "disk"
    variable, name = os.fsencode(f"WORKSPACE={disk}"), program.encode()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if variable in environment and any(part.rpartition(b"/")[2] == name for part in command):
            return int(process.name)
    return None
