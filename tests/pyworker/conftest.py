"""A model server, an engine and a worker, each on real sockets, for one test."""

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from stoker_pyworker import WorkerConfig
from stoker_pyworker.environment import Environment
from stoker_pyworker.worker import WorkerRuntime
from stoker_wire.http1.limits import Limits
from tests.pyworker.harness import (
    BOUND_SECONDS,
    LAUNCH,
    SMALL,
    TOKEN,
    Engine,
    Harness,
    Model,
    Process,
    Remote,
    handlers,
    until,
)


@pytest.fixture
async def model():
    model = await Model().start()
    yield model
    await model.stop()


@pytest.fixture
async def engine():
    engine = await Engine().start()
    yield engine
    await engine.stop()


@pytest.fixture
async def make_worker(model, engine, tmp_path):
    """Builds a worker, by default without TLS and with tickets."""
    made = []

    async def make(
        config=None, *, limits=None, ready=True, directory: Path = tmp_path, settings=None, **options
    ):
        if config is None:
            config = WorkerConfig(handlers=options.pop("handlers", None) or handlers(), **options)
        config.model_server_url = "http://127.0.0.1"
        config.model_server_port = config.model_server_port or model.port
        config.check()
        values = {
            "container_id": 17, "worker_port": 0, "report_addresses": (engine.url,), "master_token": TOKEN,
            "launch_id": LAUNCH, "drain_seconds_max": BOUND_SECONDS,
        }  # fmt: skip
        environment = Environment(**(values | (settings or {})))
        runtime = WorkerRuntime(
            config, environment, limits or Limits(body_bytes_max=config.body_bytes_max), directory=directory
        )
        harness = await Harness(runtime, engine).start()
        made.append(harness)
        return await harness.ready() if ready else harness

    yield make
    for harness in made:
        await harness.stop()


@pytest.fixture
async def worker(make_worker):
    return await make_worker()


@pytest.fixture
async def start(model, engine, tmp_path):
    """Starts a worker's process."""
    started = []

    async def start(code=SMALL, *, python=sys.executable, scheme="http", verify=True, **variables):
        environment = {
            "PATH": os.environ["PATH"], "MODEL_PORT": str(model.port), "REPORT_ADDR": engine.url,
            "CONTAINER_ID": "17", "WORKER_PORT": "0", "PUBLIC_IPADDR": "127.0.0.1", "MASTER_TOKEN": TOKEN,
        } | variables  # fmt: skip
        process = Process(
            await asyncio.create_subprocess_exec(
                python, "-c", code, cwd=tmp_path, env=environment, stdout=subprocess.PIPE
            )
        )
        started.append(process)
        listening = await until(lambda: process.event("listening"))
        client = httpx.AsyncClient(
            base_url=f"{scheme}://127.0.0.1:{listening['port']}", verify=verify, trust_env=False
        )
        process.remote = Remote(listening["port"], client)
        return process

    yield start
    for each in started:
        with contextlib.suppress(ProcessLookupError):
            each.process.kill()
        await each.process.wait()
        await each.reading
        if hasattr(each, "remote"):
            await each.remote.client.aclose()
