"""A real Prometheus server of the distribution."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from run.state_folder.lock import free_port

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None or PROMTOOL is None, reason="no Prometheus is installed (apt-get install prometheus)"
)


@contextlib.asynccontextmanager
async def prometheus_server(folder: Path, settings: dict[str, Any], *features: str) -> AsyncIterator[str]:
    """Its URL once it is ready; its data is in `data` in the folder."""
    assert PROMETHEUS is not None
    port = free_port()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            PROMETHEUS,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            *features,
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession() as http:
            while True:
                with contextlib.suppress(OSError):
                    async with http.get(f"{url}/-/ready") as answer:
                        if answer.status == 200:
                            break
                await asyncio.sleep(0.1)
        yield url
    finally:
        process.terminate()
        await process.wait()
