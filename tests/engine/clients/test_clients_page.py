"""Every example of docs/how-to/clients.md, run with the real package, the real curl and a real browser."""

import asyncio
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engine.api.model_server import ModelServer, pyworker
from tests.engine.conftest import Stage
from tests.environments import ROOT, node_folder, python_of

pytestmark = pytest.mark.timeout(900)

PAGE = (ROOT / "docs/how-to/clients.md").read_text()
ENVIRONMENTS = {"LangChain": "langchain", "LlamaIndex": "llamaindex", "LiteLLM": "litellm"}
"""The lock of a section's Python examples; all others are OpenAI's package."""


@dataclass(frozen=True)
class Example:
    section: str
    kind: str
    text: str

    @property
    def lock(self) -> str:
        return ENVIRONMENTS.get(self.section, "clients")


EXAMPLES = [
    Example(section.partition("\n")[0], kind, text)
    for section in PAGE.split("\n## ")
    for kind, text in re.findall(r"^```(python|sh|js)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
]
PRINTED = {
    "python clients": [
        "hello",
        "hello",
        "102400 bytes",
        "model_not_found Error code: 404 - the model 'gpt-none' is not served",
    ],
    "sh clients": ["", "hello", "hello", '"path": "/v1/messages"'],
    "js clients": ["hello"],
    "python langchain": ["hello\nhello[0.5, 0.25]"],
    "python llamaindex": ["hello"],
    "python litellm": ["hello"],
}
QUICK = ("python clients", "sh clients")


async def command_of(example: Example, folder: Path) -> list[str | Path]:
    match example.kind:
        case "sh":
            return ["bash", "-euc", example.text]
        case "python":
            return [await asyncio.to_thread(python_of, example.lock), "-c", example.text]
    path = await asyncio.to_thread(node_folder) / f"{folder.name}.mjs"
    await asyncio.to_thread(path.write_text, example.text)
    return ["node", path]


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(QUICK, id="openai and curl"),
        pytest.param(
            tuple(kind for kind in PRINTED if kind not in QUICK), id="the others", marks=pytest.mark.long
        ),
    ],
)
async def test_every_example_of_the_page_runs(stage: Stage, tmp_path: Path, kinds: tuple[str, ...]) -> None:
    endpoint = await stage.endpoint()
    environment = os.environ | {
        "OPENAI_BASE_URL": f"{stage.server.url}/openai/{endpoint.name}/v1",
        "OPENAI_API_KEY": endpoint.key,
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
    }
    name = json.dumps(endpoint.name)
    async with pyworker(stage, endpoint, ModelServer(), tmp_path / "worker"):
        for kind in kinds:
            examples = [one for one in EXAMPLES if f"{one.kind} {one.lock}" == kind]
            for example, expected in zip(examples, PRINTED[kind], strict=True):
                text = example.text.replace('"llm"', name).replace(
                    '"openai/llm"', f'"openai/{endpoint.name}"'
                )
                command = await command_of(Example(example.section, example.kind, text), tmp_path)
                process = await asyncio.create_subprocess_exec(
                    *command,
                    cwd=tmp_path,
                    env=environment,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                )
                out, _ = await process.communicate()
                printed = out.decode()
                assert process.returncode == 0, (text, printed)
                assert expected in printed, (text, printed)


def test_every_example_has_an_expected_text() -> None:
    assert {f"{one.kind} {one.lock}" for one in EXAMPLES} == set(PRINTED)
