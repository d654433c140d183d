"""`python -m benchmarks.faults`: each process killed and stopped, the network cut, the disk filled, under traffic."""

import asyncio
import sys

import pytest

from benchmarks.faults.cases import cases
from benchmarks.faults.stage import can_mount
from tests.attack.pages import BROWSER


@pytest.mark.long
async def test_every_fault_passes_without_loss_or_leak():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.faults", "--why", stdout=asyncio.subprocess.PIPE
    )
    said = (await process.communicate())[0].decode()
    print(said)
    assert process.returncode == 0, said
    struck = [case for case in cases() if (can_mount() or not case.disk) and (BROWSER or not case.browser)]
    assert f"{len(struck)} faults, 0 with damage" in said
