"""Every example of docs/how-to/comfyui.md, run with the real packages, the real curl and a server with ComfyUI's API."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

import stoker_pyworker
from tests.comfyui import PNG
from tests.engine.api.jobs.test_jobs import ComfyModel
from tests.engine.api.model_server import pyworker
from tests.engine.conftest import Stage
from tests.environments import ROOT, python_of

pytestmark = pytest.mark.timeout(300)

PAGE = (ROOT / "docs/how-to/comfyui.md").read_text()
EXAMPLES = re.findall(r"^```(python|python sdk|sh)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PRINTED = ['"opens_within_seconds"', f"output {len(PNG)} bytes", "True"]


def handlers_of_the_page(monkeypatch: pytest.MonkeyPatch) -> list[stoker_pyworker.HandlerConfig]:
    """The handlers of the page's worker file."""
    (code,) = re.findall(r"^```python worker\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    configs: list[stoker_pyworker.WorkerConfig] = []

    class Recorded(stoker_pyworker.Worker):
        def __init__(self, config: stoker_pyworker.WorkerConfig) -> None:
            super().__init__(config)
            configs.append(config)

        def run(self, **_: object) -> None:  # type: ignore[override]
            pass

    monkeypatch.setattr(stoker_pyworker, "Worker", Recorded)
    exec(compile(code, "the worker file", "exec"), {})  # noqa: S102 - the documentation's own code
    return configs[0].handlers


async def test_every_example_of_the_page_runs(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = await stage.endpoint()
    clients = str(await asyncio.to_thread(python_of, "clients"))
    commands = {"python": [clients, "-c"], "python sdk": [sys.executable, "-c"], "sh": ["bash", "-euc"]}
    environment = os.environ | {"STOKER_URL": stage.server.url, "STOKER_API_KEY": endpoint.key}
    handlers = handlers_of_the_page(monkeypatch)
    assert len(EXAMPLES) == len(PRINTED)
    async with pyworker(
        stage, endpoint, ComfyModel(), tmp_path / "worker", handlers=handlers, health="/queue"
    ):
        for (kind, text), expected in zip(EXAMPLES, PRINTED, strict=True):
            example = text.replace("/job/comfyui", f"/job/{endpoint.name}").replace(
                '"comfyui"', repr(endpoint.name)
            )
            process = await asyncio.create_subprocess_exec(
                *commands[kind],
                example,
                env=environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            out, _ = await process.communicate()
            assert process.returncode == 0, (example, out.decode())
            assert expected in out.decode(), (example, out.decode())
