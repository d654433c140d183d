"""The cost of the proxy: requests through stoker's worker, nginx, the official worker, and directly to the model.

    python -m benchmarks.pyworker_proxy [--quick] [--rounds N] [--without-peer] [--json FILE]

Each round measures every subject in turn, so that other load on the machine affects all of them; the table shows
medians over the rounds. stoker's worker checks a single-use ticket on every request, the official worker its RSA
signature.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.engine.machine import cpu_seconds
from benchmarks.peers.nginx import nginx
from benchmarks.pyworker.parts import (
    PAYLOAD,
    TOKEN,
    Engine,
    Load,
    Process,
    free_port,
    machine,
    official_bodies,
    our_bodies,
    peer_python,
)

CONNECTIONS = 64
OURS, OFFICIAL, DIRECT, NGINX = "stoker pyworker", "official PyWorker", "direct", "nginx"
_TICKETS_PER_SECOND = 30_000
"""Tickets that are made in advance per second of load; more than can be used."""
_READY_SECONDS = 60


class Size(NamedTuple):
    """Durations and numbers of the measurement."""

    rounds: int
    seconds: float
    singles: int
    streams: int


class Figures(NamedTuple):
    """One subject in one round, or the medians over all."""

    rate: float
    """Requests a second at 64 connections."""
    latency: float
    """Median on one connection, s."""
    first: float
    """Median to the first SSE event on one connection, s."""
    cpu: float
    """CPU time per request at 64 connections, s; 0 for the model itself."""
    failed: float


class Subject(NamedTuple):
    """One measured server: its port, its request bodies, and its process for CPU time."""

    name: str
    port: int
    bodies: Callable[[int], list[bytes]]
    pid: int | None = None
    single_use: bool = False


def measure(subject: Subject, load: Load, size: Size) -> Figures:
    """One round of one subject."""
    failed = 0

    def send(path: str, count: int, **how: Any) -> dict[str, Any]:
        nonlocal failed
        bodies = subject.bodies(count)
        result = load.run(subject.port, path, bodies, repeat=not subject.single_use, **how)
        if result["exhausted"]:
            raise SystemExit(f"{subject.name} used up {count} tickets; raise _TICKETS_PER_SECOND")
        failed += result["failed"]
        return result

    before = cpu_seconds(subject.pid) if subject.pid else 0.0
    many = int(_TICKETS_PER_SECOND * size.seconds) if subject.single_use else 4096
    loaded = send("/v1/completions", many, connections=CONNECTIONS, seconds=size.seconds)
    used = (cpu_seconds(subject.pid) if subject.pid else 0.0) - before
    alone = send("/v1/completions", size.singles + 1, connections=1, seconds=60, requests=size.singles)
    streamed = send("/stream", size.streams + 1, connections=1, seconds=60, requests=size.streams)
    return Figures(
        rate=loaded["count"] / loaded["seconds"],
        latency=alone["p50"],
        first=streamed["first_p50"],
        cpu=used / max(1, loaded["count"]),
        failed=failed,
    )


def table(measured: dict[str, list[Figures]]) -> dict[str, Figures]:
    """Print the medians; returns them."""
    middle = {
        name: Figures(*map(statistics.median, zip(*rows, strict=True))) for name, rows in measured.items()
    }
    base = middle[DIRECT]
    columns = ("requests/s", "CPU/request", "p50 alone", "added", "1st event", "added", "failed")
    print("\n" + " " * 18 + "".join(f"{column:>13}" for column in columns))
    for name, row in middle.items():
        through = name != DIRECT
        cells = (
            f"{row.rate:,.0f}",
            f"{row.cpu * 1e6:.0f} us" if through else "-",
            f"{row.latency * 1e3:.3f} ms",
            f"+{(row.latency - base.latency) * 1e3:.3f} ms" if through else "-",
            f"{row.first * 1e3:.3f} ms",
            f"+{(row.first - base.first) * 1e3:.3f} ms" if through else "-",
            f"{sum(each.failed for each in measured[name]):.0f}",
        )
        print(f"{name:18}" + "".join(f"{cell:>13}" for cell in cells))
    ours = middle[OURS]
    print()
    if OFFICIAL in middle:
        print(
            f"requests/s against the official worker  {ours.rate / middle[OFFICIAL].rate:6.1f} x    (goal: at least 8)"
        )
    peer = middle[NGINX]
    added, added_first = ours.latency - base.latency, ours.first - base.first
    print(f"requests/s against nginx                {ours.rate / peer.rate:6.2f}     (goal: at least 0.5)")
    print(
        f"CPU per request against nginx           {ours.cpu / max(peer.cpu, 1e-9):6.2f}     (0.5 of the rate is 2)"
    )
    print(
        f"added on one connection                 {added * 1e3:6.3f} ms, against nginx "
        f"{added / max(peer.latency - base.latency, 1e-6):.2f}   (goal: at most 2)"
    )
    print(
        f"first event later than direct           {added_first * 1e3:6.3f} ms, against nginx "
        f"{added_first / max(peer.first - base.first, 1e-6):.2f}   (goal: at most 1.2)"
    )
    return middle


def worker_environment(name: str, number: int, engine: Engine, model_port: int, home: Path) -> dict[str, str]:
    """The environment of a worker on an instance."""
    home.mkdir()
    (home / "model.log").write_text("ready\n")
    port = str(free_port())
    return {
        "REPORT_ADDR": f"http://127.0.0.1:{engine.port}", "CONTAINER_ID": str(number), "WORKER_PORT": port,
        f"VAST_TCP_PORT_{port}": port, "PUBLIC_IPADDR": "127.0.0.1", "MASTER_TOKEN": TOKEN,
        "MODEL_PORT": str(model_port), "MODEL_LOG": str(home / "model.log"), "WORKER_NAME": name,
    }  # fmt: skip


async def ready(engine: Engine, number: int) -> str:
    """The worker's url, after its first ready report."""
    for _ in range(_READY_SECONDS * 10):
        if number in engine.ready:
            return engine.ready[number]
        await asyncio.sleep(0.1)
    raise SystemExit(f"worker {number} was not ready within {_READY_SECONDS} s")


async def compare(size: Size, peer: str | None, folder: Path) -> dict[str, list[Figures]]:
    """Start everything, measure in turn, end everything."""
    engine = Engine()
    server = await engine.start()
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with contextlib.ExitStack() as stack:
        stack.callback(server.close)
        model = stack.enter_context(
            Process(sys.executable, "model.py", folder, stdout=subprocess.PIPE, text=True)
        )
        model_port = int(model.line())
        load = Load(folder)
        stack.enter_context(load.process)
        plain = json.dumps(PAYLOAD).encode()
        subjects = [Subject(DIRECT, model_port, lambda count: [plain] * count)]
        port, pid = stack.enter_context(nginx(folder, model_port))
        subjects.append(Subject(NGINX, port, lambda count: [plain] * count, pid))
        for name, number, python, script in (
            (OURS, 1, sys.executable, "ours.py"),
            (OFFICIAL, 2, peer, "official.py"),
        ):
            if python is None:
                continue
            home = folder / script
            env = worker_environment(name, number, engine, model_port, home)
            process = stack.enter_context(Process(python, script, home, env, **quiet))
            url = await ready(engine, number)
            make = our_bodies if name == OURS else official_bodies
            subjects.append(
                Subject(
                    name,
                    int(env["WORKER_PORT"]),
                    functools.partial(make, engine, url),
                    process.process.pid,
                    single_use=name == OURS,
                )
            )
        measured: dict[str, list[Figures]] = {subject.name: [] for subject in subjects}
        for number in range(size.rounds):
            print(f"round {number + 1} of {size.rounds}", flush=True)
            for subject in subjects:
                # In a thread, so that the engine keeps accepting reports.
                measured[subject.name].append(await asyncio.to_thread(measure, subject, load, size))
    return measured


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without-peer", action="store_true", help="leave the official worker out")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    size = Size(1, 1.0, 300, 40) if options.quick else Size(options.rounds, 3.0, 2000, 150)
    peer = None if options.without_peer else peer_python()
    before = machine()
    print(before, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        measured = asyncio.run(compare(size, peer, Path(folder)))
    middle = table(measured)
    print(
        f"{CONNECTIONS} connections, medians of {size.rounds} rounds of {size.seconds:g} s; at the end: {machine()}"
    )
    if options.json:
        figures = {name: row._asdict() for name, row in middle.items()}
        options.json.write_text(json.dumps({"machine": before, "figures": figures}, indent=1))


if __name__ == "__main__":
    main()
