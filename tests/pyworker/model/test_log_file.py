"""The file that the model's log is to be read from may be no such file: the worker serves on and says so."""

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
async def test_what_is_no_file_is_told_and_the_worker_serves_on(make_worker, tmp_path, engine, make):
    path = make(tmp_path / "model.log")
    # Whoever waits for a writer is let go after a while, so that this test fails instead of waiting for ever.
    release = threading.Timer(3, lambda: path.is_fifo() and os.close(os.open(path, os.O_RDWR)))
    release.start()
    worker = await make_worker(model_log_file=str(path), log_action_config=ACTIONS, ready=False)
    async with asyncio.timeout(2.5):
        await until(lambda: engine.statuses and str(path) in engine.statuses[-1]["error_msg"])
        assert (await worker.client.get("/healthz")).status_code == 503
    release.cancel()


async def test_a_file_that_comes_in_place_of_what_was_none_is_read(make_worker, tmp_path, engine):
    path = folder(tmp_path / "model.log")
    worker = await make_worker(model_log_file=str(path), log_action_config=ACTIONS, ready=False)
    await until(lambda: engine.statuses and "found a directory" in engine.statuses[-1]["error_msg"])
    path.rmdir()
    path.write_text("model ready\n")
    await worker.ready()
    await until(lambda: engine.statuses[-1]["error_msg"] == "")
