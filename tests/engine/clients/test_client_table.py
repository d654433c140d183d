"""Every client makes every call that it has. The results are docs/reference/client-table.md."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.engine.api.model_server import MODEL, ModelServer, pyworker
from tests.engine.clients.table import (
    TABLE,
    Outcomes,
    node_version,
    pinned_version,
    read_outcomes,
    script,
    table,
)
from tests.engine.conftest import ALICE, EndpointDouble, Stage
from tests.engine.fake_endpoint_workflow import until
from tests.engine.test_certificate_authority import CA_PEM
from tests.environments import node_folder, python_of

# The first run installs the packages.
pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

LEAVING = ("cancel", "timeout")


@dataclass(frozen=True)
class Client:
    title: str
    script: str
    program: Callable[[], Path]


CLIENTS = (
    Client(
        f"openai {pinned_version('clients', 'openai')} (Python)",
        "openai_python.py",
        lambda: python_of("clients"),
    ),
    Client(f"openai {node_version()} (Node)", "openai_node.mjs", lambda: Path("node")),
    Client(
        f"langchain-openai {pinned_version('langchain', 'langchain-openai')}",
        "langchain_client.py",
        lambda: python_of("langchain"),
    ),
    Client(
        f"litellm {pinned_version('litellm', 'litellm')}", "litellm_client.py", lambda: python_of("litellm")
    ),
    Client(f"vastai {pinned_version('peer', 'vastai')}", "vast_client.py", lambda: python_of("peer")),
    Client("curl", "curl_client.py", lambda: Path(sys.executable)),
)


@pytest_asyncio.fixture(loop_scope="session")
async def secure_stage(bare_stage: Stage) -> AsyncIterator[Stage]:
    """An engine with a certificate authority: Vast's client asks for its root certificate."""
    await bare_stage.start_engine(ca_key_pem=CA_PEM)
    yield bare_stage


async def outcomes_of(client: Client, stage: Stage, endpoint: EndpointDouble, model: ModelServer) -> Outcomes:
    program = await asyncio.to_thread(client.program)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "OPENAI_BASE_URL": f"{stage.server.url}/openai/{endpoint.name}/v1",
        "OPENAI_API_KEY": endpoint.key,
        "MODEL": MODEL,
        "ENDPOINT": endpoint.name,
        "ENGINE": stage.server.url,
        "ACCOUNT_KEY": ALICE,
        "NODE_FOLDER": str(await asyncio.to_thread(node_folder)),
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
    }
    model.left.clear()
    process = await asyncio.create_subprocess_exec(
        program,
        script(client.script),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, error = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    outcomes = read_outcomes(out.decode())
    assert "50 at once" in outcomes, (client.title, out.decode(), error.decode())
    assert not any(outcomes.values()), (client.title, outcomes, error.decode())
    for name in LEAVING:
        await until(
            lambda name=name: f"slow {name}" in model.left, f"{client.title}: {name} ends the model's work"
        )
    return outcomes


async def test_every_client_makes_every_call_that_it_has(secure_stage: Stage, tmp_path: Path) -> None:
    endpoint = await secure_stage.endpoint()
    model = ModelServer()
    async with pyworker(secure_stage, endpoint, model, tmp_path / "worker"):
        outcomes = {
            client.title: await outcomes_of(client, secure_stage, endpoint, model) for client in CLIENTS
        }
    if os.environ.get("STOKER_WRITE_TABLE"):
        await asyncio.to_thread(TABLE.write_text, table(outcomes))
    assert await asyncio.to_thread(TABLE.read_text) == table(outcomes), (
        "write it again: STOKER_WRITE_TABLE=1 pytest -m long tests/engine/clients"
    )
