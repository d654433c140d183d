"""How fast an engine routes: `python -m benchmarks.engine_route [--quick] [--request-log]`.

One engine process with 100 workers that report over HTTP. This process generates the load on the same machine.
The table shows medians over the runs.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
from pathlib import Path

import uvloop

from benchmarks.engine.load import Generator, Result
from benchmarks.engine.machine import cpu_times, facts, rss_mib
from benchmarks.engine.stage import EngineProcess, Feeder, add_endpoint, route_request, temporal

WORKERS = 100
CONNECTIONS = 32
ROUTES_WANTED = 4000
P99_WANTED_MS = 10.0


async def routes(runs: int, seconds: float, *request_log: str) -> None:
    """The maximum of routes per second, and the latency at half of it and at half of the wanted rate."""
    async with temporal() as env:
        memo = await add_endpoint(env, 1, WORKERS)
        engine = await EngineProcess.start(env.client.service_client.config.target_host, *request_log)
        generator = Generator(engine.port, CONNECTIONS, [route_request(memo)])
        feeder = Feeder(engine.port, [memo], generator)
        await feeder.round()
        await generator.open()
        feeding = asyncio.ensure_future(feeder.run())
        try:
            await generator.flat_out(1.0)
            before = cpu_times(engine.pid)
            fast = [await generator.flat_out(seconds) for _ in range(runs)]
            own, kernel = each_of(fast, before, cpu_times(engine.pid))
            peer_own, peer_kernel = await hello_world(runs, seconds, route_request(memo))
            most = statistics.median(run.per_second for run in fast)
            report(f"flat out, {CONNECTIONS} connections", fast)
            each, peer_each = own + kernel, peer_own + peer_kernel
            print(
                f"engine CPU per route: {each * 1e6:.0f} us ({own * 1e6:.0f} in its code, {kernel * 1e6:.0f} in the "
                f"kernel) -> {1 / each:,.0f} routes/s on a core of its own"
            )
            print(
                f"aiohttp hello-world: {peer_each * 1e6:.0f} us ({peer_own * 1e6:.0f} and {peer_kernel * 1e6:.0f}); the "
                f"engine routes {peer_each / each:.2f} of its requests per CPU second (goal: at least 1.5)"
            )
            for title, rate in (
                ("half the maximum", most / 2),
                ("half of what is wanted", ROUTES_WANTED / 2),
            ):
                report(
                    f"{title}, {rate:,.0f}/s", [await generator.at_rate(rate, seconds) for _ in range(runs)]
                )
            print(
                f"engine RSS after it all: {rss_mib(engine.pid):.0f} MiB; reports refused: {feeder.refused}"
            )
        finally:
            feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await feeding
            generator.close()
            await engine.stop()


def each_of(
    runs: list[Result], before: tuple[float, float], after: tuple[float, float]
) -> tuple[float, float]:
    """CPU seconds per call in the process's own code and in the kernel."""
    calls = sum(len(run.latencies) for run in runs)
    return (after[0] - before[0]) / calls, (after[1] - before[1]) / calls


async def hello_world(runs: int, seconds: float, request: bytes) -> tuple[float, float]:
    """CPU seconds per request of an aiohttp server that answers the same calls with a constant (`each_of`)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.peers.hello", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    generator = Generator(int(await process.stdout.readline()), CONNECTIONS, [request])
    await generator.open()
    try:
        await generator.flat_out(1.0)
        before = cpu_times(process.pid)
        fast = [await generator.flat_out(seconds) for _ in range(runs)]
        report(f"aiohttp hello-world, {CONNECTIONS} connections", fast)
        return each_of(fast, before, cpu_times(process.pid))
    finally:
        generator.close()
        process.terminate()
        await process.wait()


async def memory(workers: int) -> None:
    """Resident memory of an engine with this many workers, minus that of an engine without workers."""
    async with temporal() as env:
        address = env.client.service_client.config.target_host
        empty = await EngineProcess.start(address)
        base = rss_mib(empty.pid)
        await empty.stop()
        memos = [await add_endpoint(env, 100 + n, WORKERS) for n in range(workers // WORKERS)]
        engine = await EngineProcess.start(address)
        feeder = Feeder(engine.port, memos)
        for _ in range(3):
            await feeder.round()
        full = rss_mib(engine.pid)
        await engine.stop()
    print(f"memory: {base:.0f} MiB with no worker, {full:.0f} MiB with {workers}", end="")
    print(f" -> {(full - base) * 1000 / workers:.1f} MiB per 1,000 workers; refused {feeder.refused}")


def report(title: str, runs: list[Result]) -> None:
    """One line of medians."""

    def median(values: list[float]) -> float:
        return statistics.median(values)

    rate = median([run.per_second for run in runs])
    p50, p99 = (median([run.quantile_ms(q) for run in runs]) for q in (0.5, 0.99))
    errors, waiting = sum(run.errors for run in runs), sum(run.waiting for run in runs)
    print(f"{title:32} {rate:8,.0f} routes/s   p50 {p50:6.2f} ms   p99 {p99:6.2f} ms", end="")
    load = os.getloadavg()[0]
    print(f"   ({errors} errors, {waiting} told to wait, {len(runs)} runs, load average {load:.1f})")


def main(argv: list[str] | None = None) -> None:
    """Runs the benchmark and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    parser.add_argument(
        "--request-log", action="store_true", help="the same with every request recorded, beside it"
    )
    asked = parser.parse_args(argv)
    quick = asked.quick
    print(facts())
    print(
        f"wanted: {ROUTES_WANTED:,} routes/s with {WORKERS} workers, p99 <= {P99_WANTED_MS:g} ms at half of that"
    )
    runs, seconds = (1, 2.0) if quick else (5, 5.0)
    uvloop.run(routes(runs, seconds))
    if asked.request_log:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "requests.jsonl"
            print("with a request log:")
            uvloop.run(routes(runs, seconds, str(path)))
            with path.open() as lines:
                print(f"recorded: {sum(1 for _ in lines):,} requests")
    uvloop.run(memory(1000))


if __name__ == "__main__":
    main()
