"""LiteLLM's proxy server, one worker process, before one model that speaks OpenAI's API."""

import contextlib
import json
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.nginx import until_listening
from tests.environments import python_of

MASTER_KEY = "sk-" + secrets.token_hex(32)
_READY_SECONDS = 120


@contextlib.contextmanager
def litellm_proxy(folder: Path, upstream: int, model: str) -> Iterator[tuple[int, int]]:
    """Port and process id of the proxy before the server at `upstream`."""
    program = python_of("litellm").parent / "litellm"
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    to = {"model": f"openai/{model}", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "none"}
    config = folder / "litellm.yaml"
    config.write_text(json.dumps({"model_list": [{"model_name": model, "litellm_params": to}]}))
    process = subprocess.Popen(
        [program, "--config", config, "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"],
        cwd=folder,
        env=os.environ
        | {"LITELLM_LOCAL_MODEL_COST_MAP": "true", "LITELLM_LOG": "ERROR", "LITELLM_MASTER_KEY": MASTER_KEY},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until_listening(port, process, _READY_SECONDS)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()
