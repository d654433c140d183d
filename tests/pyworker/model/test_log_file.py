"""A log path that is not a regular file is reported and does not stop the worker."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from stoker_pyworker import LogActionConfig
from tests.pyworker.harness import until

ACTIONS = LogActionConfig(on_load=["model ready"], on_error=["CUDA error"])


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def looped(path: Path) -> Path:
    path.symlink_to(path)
    return path


def device(_: Path) -> Path:
    return Path("/dev/zero")


@pytest.mark.parametrize("make", [fifo, folder, looped, device])
async def test_a_log_path_that_is_not_a_regular_file_is_an_error(make_worker, tmp_path, engine, make):
    path = make(tmp_path / "model.log")
    # Unblocks a reader that waits for a writer of the FIFO, so that the test fails instead of hanging.
    release = threading.Timer(3, lambda: path.is_fifo() and os.close(os.open(path, os.O_RDWR)))
    release.start()
    worker = await make_worker(model_log_file=str(path), log_action_config=ACTIONS, ready=False)
    async with asyncio.timeout(2.5):
        await until(lambda: engine.statuses and str(path) in engine.statuses[-1]["error_msg"])
        assert (await worker.client.get("/healthz")).status_code == 503
    release.cancel()


async def test_a_regular_file_that_replaces_a_directory_is_read(make_worker, tmp_path, engine):
    path = folder(tmp_path / "model.log")
    worker = await make_worker(model_log_file=str(path), log_action_config=ACTIONS, ready=False)
    await until(lambda: engine.statuses and "found a directory" in engine.statuses[-1]["error_msg"])
    path.rmdir()
    path.write_text("model ready\n")
    await worker.ready()
    await until(lambda: engine.statuses[-1]["error_msg"] == "")
