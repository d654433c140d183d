"""What each part adds to the first token of a stream: `python -m benchmarks.first_token [--quick] [--rounds N]`.

One deployment with real processes and one worker. Each round asks, one after the other: the model server itself, the
engine's `/route/`, the worker with that route, the SDK, and the OpenAI API, all over connections that are open before. The model
answers at once; `benchmarks.real_models` measures real ones.
"""

import argparse
import asyncio
import json
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

import stoker
from benchmarks.engine.machine import facts
from hosts.settings import MachineSettings, TemplateSettings
from run.commands.dev import DevStack
from run.settings import DeploymentSettings, load_settings
from run.state_folder.lock import free_port

ROOT = Path(__file__).parents[1]
NAME, PATH = "first-token", "/v1/chat/completions"
BODY = {"model": "bench", "messages": [{"role": "user", "content": "hello"}], "stream": True, "max_tokens": 4}
COST = 200.0
ADDED_WANTED_MS = 5.0


class Connection:
    """An open HTTP/1.1 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> "Connection":
        """Connected to a local port."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def close(self) -> None:
        """Close it."""
        self._writer.close()

    async def post(self, path: str, body: Any, *, key: str = "") -> tuple[float, bytes]:
        """Milliseconds until the first byte of the answer's body, and the body."""
        content = json.dumps(body).encode()
        auth = f"authorization: Bearer {key}\r\n" if key else ""
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{auth}content-length: {len(content)}\r\n\r\n"
        began = time.perf_counter()
        self._writer.write(head.encode() + content)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if b"transfer-encoding: chunked" not in answer:
            length = int(answer.split(b"content-length:")[1].split(b"\r\n")[0])
            first = await self._reader.readexactly(1)
            took = time.perf_counter() - began
            body_bytes = first + await self._reader.readexactly(length - 1)
        else:
            took, body_bytes = 0.0, b""
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                body_bytes += (await self._reader.readexactly(size + 2))[:-2]
                took = took or time.perf_counter() - began
            await self._reader.readexactly(2)
        if b" 200 " not in answer.split(b"\r\n")[0]:
            raise RuntimeError(f"{path}: {answer!r} {body_bytes[:300]!r}")
        return took * 1000, body_bytes


def settings_in(folder: Path, variables: dict[str, str]) -> DeploymentSettings:
    """A deployment of one machine without a limit of CPU, and one template."""
    settings = load_settings(ROOT / "temporal-dev.yaml")
    template = TemplateSettings(
        name=NAME,
        hash_id=NAME,
        env=shlex.join([word for name, value in variables.items() for word in ("-e", f"{name}={value}")]),
        onstart="exec python -m stoker_pyworker.presets",
    )
    host = settings.host_market.model_copy(
        update={
            "port": free_port(),
            "machines": (MachineSettings(name="CPU", dollars_per_hour=0.1),),
            "templates": (template,),
        }
    )
    return settings.model_copy(
        update={
            "state_dir": folder,
            "host_market": host,
            "temporal": settings.temporal.model_copy(update={"port": free_port(), "ui_port": free_port()}),
            "engine": settings.engine.model_copy(update={"port": free_port()}),
            "dashboard": settings.dashboard.model_copy(update={"port": free_port()}),
            "worker": settings.worker.model_copy(update={"metrics_port": free_port()}),
        }
    )


async def sdk_first_ms(endpoint: stoker.Endpoint) -> float:
    """Milliseconds until the SDK's first event; the stream is read to its end."""
    began, took = time.perf_counter(), 0.0
    async with endpoint.stream(PATH, BODY, cost=COST, timeout=120) as stream:
        async for _ in stream:
            took = took or time.perf_counter() - began
    return took * 1000


async def measure(stack: DevStack, rounds: int) -> dict[str, list[float]]:
    """Milliseconds to the first token by part."""
    assert stack.keys is not None
    key, url = stack.keys.account_key, stack.settings.engine.url
    taken: dict[str, list[float]] = {
        name: [] for name in ("model alone", "route", "worker", "SDK", "OpenAI API")
    }
    async with stoker.Serverless(key, url=url) as client:
        made = await client.endpoints.create(
            NAME, min_load=1.0, min_workers=1, max_workers=1, inactivity_timeout=-1.0, max_queue_time=60.0
        )
        await client.workergroups.create(made.id, template_hash=NAME, search_params="num_gpus=1", gpu_ram=0.0)
        endpoint = await client.get_endpoint(NAME)
        await sdk_first_ms(endpoint)
        (worker,) = await client.endpoints.workers(made.id)
        port = urlsplit(worker.url).port or 0
        at_worker, model = await Connection.to(port), await Connection.to(port + 2)
        engine = urlsplit(url).port or 0
        router, openai = await Connection.to(engine), await Connection.to(engine)
        for _ in range(rounds):
            taken["model alone"].append((await model.post(PATH, BODY))[0])
            ms, route = await router.post("/route/", {"endpoint": NAME, "cost": COST, "api_key": key})
            taken["route"].append(ms)
            ms, _ = await at_worker.post(PATH, {"auth_data": json.loads(route), "payload": BODY})
            taken["worker"].append(ms)
            taken["SDK"].append(await sdk_first_ms(endpoint))
            taken["OpenAI API"].append((await openai.post(f"/openai/{NAME}{PATH}", BODY, key=key))[0])
    return taken


async def run(options: argparse.Namespace) -> int:
    """Print the table; 1 if a path adds more than wanted."""
    variables = {"STOKER_PRESET": "http", "MODEL_PERF": "1000", "MODEL_ROUTES": f'[{{"path": "{PATH}"}}]'}
    variables["MODEL_COMMAND"] = shlex.join([sys.executable, str(ROOT / "benchmarks/pyworker/model.py")])
    with tempfile.TemporaryDirectory() as folder:
        stack = DevStack(settings_in(Path(folder) / "state", variables))
        try:
            await stack.start()
            taken = await measure(stack, options.rounds or (40 if options.quick else 200))
        finally:
            await stack.stop()
    print(f"{facts()}\n")
    print("| to the first token | p10 ms | median ms | p90 ms | added at the median |\n|---|---|---|---|---|")
    alone, worst = statistics.median(taken["model alone"]), 0.0
    for name, values in taken.items():
        low, *_, high = statistics.quantiles(values, n=10)
        median = statistics.median(values)
        added = median - (0.0 if name == "route" else alone)
        worst = max(worst, added)
        print(f"| {name} | {low:.2f} | {median:.2f} | {high:.2f} | {added:.2f} |")
    return int(worst > ADDED_WANTED_MS)


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=0)
    options = parser.parse_args()
    return uvloop.run(run(options))


if __name__ == "__main__":
    sys.exit(main())
