"""The example's `run.py` starts its model server without a start script, and leaves no process behind."""

import asyncio
import shutil
import sys
from pathlib import Path

import httpx

from run.state_folder.lock import free_port
from stoker_pyworker.model.server.process_group import MARK
from tests.pyworker.harness import Process, until

EXAMPLE = Path(__file__).parents[3] / "examples" / "text_model"


def model_servers(worker_pid):
    mark = f"{MARK}={worker_pid}-".encode()
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and mark in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found


async def test_the_example_runs_its_model_server_itself(tmp_path):
    files = shutil.copytree(EXAMPLE, tmp_path / "example")
    environment = {
        "PATH": "/usr/bin:/bin",
        "UNSECURED": "true",
        "WORKER_PORT": "0",
        "MODEL_PORT": str(free_port()),
    }
    worker = Process(
        await asyncio.create_subprocess_exec(
            sys.executable, "run.py", cwd=files, env=environment, stdout=asyncio.subprocess.PIPE
        )
    )
    try:
        await until(lambda: worker.event("ready"), 60)
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            answer = await client.post(
                f"http://127.0.0.1:{worker.event('listening')['port']}/v1/completions",
                json={"auth_data": {"cost": 8}, "payload": {"prompt": "The stoker ", "max_tokens": 8}},
            )
        assert answer.json()["choices"][0]["text"]
        assert model_servers(worker.process.pid)
        worker.process.terminate()
        assert await worker.process.wait() == 0
        assert model_servers(worker.process.pid) == []
    finally:
        if worker.process.returncode is None:
            worker.process.kill()
        await worker.process.wait()
        await worker.reading
