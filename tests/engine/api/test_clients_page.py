"""Every example of docs/how-to/clients.md, run with the real package and the real curl."""

import asyncio
import json
import os
import re
from pathlib import Path

import pytest

from tests.engine.api.model_server import ModelServer, pyworker
from tests.engine.conftest import Stage
from tests.environments import ROOT, python_of

pytestmark = pytest.mark.timeout(300)

PAGE = (ROOT / "docs/how-to/clients.md").read_text()
EXAMPLES = re.findall(r"^```(python|sh)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PRINTED = {
    "python": [
        "hello",
        "hello",
        "102400 bytes",
        "model_not_found Error code: 404 - the model 'gpt-none' is not served",
    ],
    "sh": ["", "hello", "hello", '"path": "/v1/messages"'],
}


async def test_every_example_of_the_page_runs(stage: Stage, tmp_path: Path) -> None:
    endpoint = await stage.endpoint()
    python = await asyncio.to_thread(python_of, "clients")
    environment = os.environ | {
        "OPENAI_BASE_URL": f"{stage.server.url}/openai/{endpoint.name}/v1",
        "OPENAI_API_KEY": endpoint.key,
    }
    expected = {kind: iter(texts) for kind, texts in PRINTED.items()}
    async with pyworker(stage, endpoint, ModelServer(), tmp_path / "worker"):
        for kind, text in EXAMPLES:
            example = text.replace('"llm"', json.dumps(endpoint.name))
            command = [python, "-c", example] if kind == "python" else ["bash", "-euc", example]
            process = await asyncio.create_subprocess_exec(
                *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            out, _ = await process.communicate()
            printed = out.decode()
            assert process.returncode == 0, (example, printed)
            assert next(expected[kind]) in printed, (example, printed)
    assert [list(rest) for rest in expected.values()] == [[], []], "every expected text was printed"
