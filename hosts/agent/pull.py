"""Simulates an image pull: writes the image's size to the instance's disk at the machine's rate."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

MEGABYTE = 1_000_000


async def pull(
    path: Path,
    *,
    size_mb: float,
    mb_per_second: float,
    interrupted: Callable[[], bool],
    progress: Callable[[float], None],
) -> bool:
    """Write the image's bytes to `path`, resuming an earlier pull. Return False if interrupted."""
    size = round(size_mb * MEGABYTE)
    if size == 0:
        return True
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        done = os.fstat(descriptor).st_size
        began, before = time.monotonic(), done
        # Chunks of 0.1 s keep the rate even and the interruption quick.
        chunk = os.urandom(max(4096, min(4 * MEGABYTE, round(mb_per_second * MEGABYTE / 10))))
        while done < size:
            if interrupted():
                return False
            piece = chunk[: size - done]
            await asyncio.to_thread(os.write, descriptor, piece)
            done += len(piece)
            progress(done / MEGABYTE)
            due = began + (done - before) / (mb_per_second * MEGABYTE)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        return not interrupted()
    finally:
        os.close(descriptor)
