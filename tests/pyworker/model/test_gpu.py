"""GPU readings from NVML: the real binding with a small driver library built by the test."""

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from stoker_pyworker.model import gpu
from stoker_pyworker.model.gpu import GpuReading, Gpus
from stoker_wire.worker_status import WorkerStatus
from tests.pyworker.harness import until


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """A folder with a `libnvidia-ml.so.1`."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("driver.c")
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source], check=True)
    return folder


async def test_two_gpus_are_reported_and_a_broken_one_is_an_error(start, engine, driver):
    worker = await start(LD_LIBRARY_PATH=str(driver))
    await until(lambda: engine.statuses and engine.statuses[-1]["error_msg"])
    status = WorkerStatus.model_validate(engine.statuses[-1])
    well, broken = status.gpus
    assert (well.name, well.utilization_percent, well.memory_used_gib, well.memory_total_gib) == (
        "NVIDIA Test 4090", 87.0, 6.0, 24.0,
    )  # fmt: skip
    assert (well.power_watts, well.temperature_celsius, well.ecc_errors, well.xid) == (312.5, 64.0, 0, 0)
    # A missing sensor is 0; the others are still read.
    assert (broken.power_watts, broken.temperature_celsius, broken.ecc_errors, broken.xid) == (
        0.0,
        64.0,
        3,
        79,
    )
    assert "fallen off the bus" in status.error_msg
    assert worker.event("gpus")["names"] == ["NVIDIA Test 4090"] * 2


async def test_a_worker_reads_only_the_gpus_that_its_model_sees(start, engine, driver):
    """On one machine with several slots, the broken GPU 1 belongs to another worker."""
    worker = await start(LD_LIBRARY_PATH=str(driver), CUDA_VISIBLE_DEVICES="0")
    await until(lambda: engine.statuses and engine.statuses[-1]["max_perf"])
    status = WorkerStatus.model_validate(engine.statuses[-1])
    assert ([gpu.index for gpu in status.gpus], status.error_msg) == ([0], "")
    assert worker.event("gpus")["names"] == ["NVIDIA Test 4090"]


async def test_without_a_driver_there_are_no_gpus_and_no_error():
    gpus = Gpus()
    await gpus.find()
    if gpus.names:
        pytest.skip("this machine has a GPU")
    assert gpus.readings == ()
    await gpus.watch()


async def test_an_unexpected_driver_error_keeps_the_last_readings(monkeypatch):
    monkeypatch.setattr(gpu, "_POLL_SECONDS", 0.001)
    gpus, reads = Gpus(), []

    def read():
        reads.append(1)
        if len(reads) == 2:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        return (GpuReading(index=0, name=f"read {len(reads)}"),)

    gpus._nvml, gpus._read = object(), read
    watching = asyncio.create_task(gpus.watch())
    await until(lambda: watching.done() or len(reads) > 3)
    assert not watching.done()
    assert gpus.names
    watching.cancel()
