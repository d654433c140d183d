"""The engine's OpenAI API as a reverse proxy, beside nginx and LiteLLM, before the same model in one run.

    python -m benchmarks.openai_door [--quick] [--rounds N] [--without-litellm] [--without-streams] [--json FILE]

The model poses as the endpoint's worker, so every subject is one hop. The table shows medians over the rounds. CPU
per request depends less on other load of the machine than requests per second do.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.door.streams import Streams, open_streams
from benchmarks.engine.machine import cpu_seconds, facts
from benchmarks.engine.stage import SECRET, EngineProcess, Feeder, add_endpoint, temporal
from benchmarks.peers.litellm_proxy import MASTER_KEY, litellm_proxy
from benchmarks.peers.nginx import nginx
from benchmarks.pyworker.parts import Load, Process
from stoker_wire.security.token import mint_endpoint_key

CONNECTIONS, STREAMS = 64, 500
DIRECT, NGINX, OURS, LITELLM = "direct", "nginx", "stoker engine", "LiteLLM"
PATH = "/v1/chat/completions"
_ASKED = {
    "model": "bench",
    "messages": [{"role": "user", "content": "The stoker went below. " * 8}],
    "max_tokens": 64,
}
WHOLE = json.dumps(_ASKED).encode()
STREAM = json.dumps(_ASKED | {"stream": True}).encode()
LONG = json.dumps(_ASKED | {"stream": True, "messages": [{"role": "user", "content": "long"}]}).encode()


@dataclass(frozen=True)
class Size:
    """Durations and numbers of the measurement."""

    rounds: int
    seconds: float
    singles: int
    streams: int


@dataclass(frozen=True)
class Subject:
    """One measured server."""

    name: str
    port: int
    pid: int
    path: str = PATH
    headers: str = ""
    share: float = 1.0
    """Part of the single requests that this subject gets: LiteLLM is slow."""


@dataclass(frozen=True)
class Figures:
    """One subject in one round, or the medians over all. Times in seconds."""

    rate: float
    """Requests a second at 64 connections."""
    cpu: float
    """CPU time per request at 64 connections."""
    p50: float
    """Median on one connection."""
    p99: float
    """99th percentile on one connection."""
    first: float
    """Median to the first event of a stream on one connection."""
    failed: float


def measure(subject: Subject, load: Load, size: Size) -> Figures:
    """One round of one subject."""

    def send(body: bytes, connections: int, seconds: float, requests: int | None = None) -> dict[str, Any]:
        return load.run(
            subject.port,
            subject.path,
            [body],
            connections=connections,
            seconds=seconds,
            requests=requests,
            headers=subject.headers,
        )

    before = cpu_seconds(subject.pid)
    loaded = send(WHOLE, CONNECTIONS, size.seconds)
    used = cpu_seconds(subject.pid) - before
    alone = send(WHOLE, 1, 60, max(10, int(size.singles * subject.share)))
    streamed = send(STREAM, 1, 60, max(10, int(size.streams * subject.share)))
    return Figures(
        rate=loaded["count"] / loaded["seconds"],
        cpu=used / max(1, loaded["count"]),
        p50=alone["p50"],
        p99=alone["p99"],
        first=streamed["first_p50"],
        failed=loaded["failed"] + alone["failed"] + streamed["failed"],
    )


def medians(rows: list[Figures]) -> Figures:
    """The median of each figure."""
    columns = zip(*(asdict(row).values() for row in rows), strict=True)
    return Figures(*map(statistics.median, columns))


def report(measured: dict[str, list[Figures]]) -> dict[str, Figures]:
    """Print the table and the goals."""
    middle = {name: medians(rows) for name, rows in measured.items()}
    base = middle[DIRECT]
    columns = ("requests/s", "CPU/request", "added p50", "added p99", "event added", "failed")
    print("\n" + " " * 16 + "".join(f"{column:>14}" for column in columns))
    for name, row in middle.items():
        cells = [f"{row.rate:,.0f}", "-", "-", "-", "-", f"{sum(each.failed for each in measured[name]):.0f}"]
        if name != DIRECT:
            added = (row.p50 - base.p50, row.p99 - base.p99, row.first - base.first)
            cells[1:5] = [f"{row.cpu * 1e6:.0f} us", *(f"{value * 1e3:.3f} ms" for value in added)]
        print(f"{name:16}" + "".join(f"{cell:>14}" for cell in cells))
    ours, peer = middle[OURS], middle[NGINX]
    print(f"\nrequests/s against nginx      {ours.rate / peer.rate:6.2f}   (goal: at least 0.3)")
    print(f"CPU per request against nginx {ours.cpu / max(peer.cpu, 1e-9):6.2f}   (0.3 of the rate is 3.33)")
    if LITELLM in middle:
        slow = middle[LITELLM]
        print(f"requests/s against LiteLLM    {ours.rate / slow.rate:6.1f}   (goal: at least 10)")
        print(f"CPU per request of LiteLLM    {slow.cpu / ours.cpu:6.1f}   times ours")
    first = (ours.first - base.first) / max(peer.first - base.first, 1e-6)
    print(f"first event against nginx     {first:6.2f}   (goal: at most 2)")
    return middle


async def compare(size: Size, folder: Path, *, litellm: bool, streams: bool) -> dict[str, Figures]:
    """Start everything, measure in turn, end everything."""
    async with temporal() as env:
        memo = await add_endpoint(env, 1, 1)
        with contextlib.ExitStack() as stack:
            model = stack.enter_context(
                Process(sys.executable, "model.py", folder, stdout=subprocess.PIPE, text=True)
            )
            upstream = int(model.line())
            load = Load(folder)
            stack.enter_context(load.process)
            engine = await EngineProcess.start(env.client.service_client.config.target_host)
            feeder = Feeder(engine.port, [memo], worker_url=f"http://127.0.0.1:{upstream}")
            feeding = asyncio.ensure_future(feeder.run())
            try:
                await feeder.round()
                key = mint_endpoint_key(SECRET, memo.id, memo.key_version)
                subjects = [
                    Subject(DIRECT, upstream, model.process.pid),
                    Subject(NGINX, *stack.enter_context(nginx(folder, upstream))),
                    Subject(
                        OURS,
                        engine.port,
                        engine.pid,
                        f"/openai/{memo.name}{PATH}",
                        f"authorization: Bearer {key}\r\n",
                    ),
                ]
                if litellm:
                    proxy = stack.enter_context(litellm_proxy(folder, upstream, "bench"))
                    key = f"authorization: Bearer {MASTER_KEY}\r\n"
                    subjects.append(Subject(LITELLM, *proxy, headers=key, share=0.05))
                middle = report(await rounds(subjects, load, size))
                for each in subjects[1:] if streams else ():
                    await long_streams(each)
                return middle
            finally:
                feeding.cancel()
                await engine.stop()


async def rounds(subjects: list[Subject], load: Load, size: Size) -> dict[str, list[Figures]]:
    """Each subject in turn, once a round."""
    measured: dict[str, list[Figures]] = {subject.name: [] for subject in subjects}
    for number in range(size.rounds):
        print(f"round {number + 1} of {size.rounds}", flush=True)
        for subject in subjects:
            # In a thread, so that the workers' reports go on.
            measured[subject.name].append(await asyncio.to_thread(measure, subject, load, size))
    return measured


async def long_streams(subject: Subject) -> Streams:
    """500 streams of a minute at once."""
    seen = await open_streams(subject.port, subject.pid, subject.path, subject.headers, LONG, STREAMS)
    print(f"{subject.name:16} {seen}", flush=True)
    return seen


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without-litellm", action="store_true", help="leave LiteLLM out")
    parser.add_argument("--without-streams", action="store_true", help="leave the 500 streams out")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    size = Size(1, 2.0, 300, 40) if options.quick else Size(options.rounds, 3.0, 2000, 150)
    print(facts(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        middle = asyncio.run(
            compare(
                size,
                Path(folder),
                litellm=not options.without_litellm,
                streams=not options.without_streams,
            )
        )
    print(
        f"{CONNECTIONS} connections, medians of {size.rounds} rounds of {size.seconds:g} s; at the end: {facts()}"
    )
    if options.json:
        options.json.write_text(json.dumps({name: asdict(row) for name, row in middle.items()}, indent=1))


if __name__ == "__main__":
    main()
