"""A thousand endpoints on one machine: `python -m benchmarks.scale [--endpoints 1000 --workers 10 --minutes 5 --rate
2] [--quick]`.

The real parts of `stokerd dev` (a Temporal dev server on a file, one Temporal worker, one engine). This process plays
the workers, clients and marketplace. Measured: the time from an urgent event to the marketplace call; CPU and memory
of each process; lost requests. A run takes a few minutes and cleans up after itself.
"""

import argparse
import asyncio
import contextlib
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import structlog
import uvloop

from benchmarks.engine.machine import facts
from benchmarks.scale.checks import Findings, check, engine_counts, events_written, until_known
from benchmarks.scale.drive import REQUESTS_PER_SECOND, Drive
from benchmarks.scale.gauges import Gauges, quantile
from benchmarks.scale.seed import start_all
from benchmarks.scale.stage import Stage

P99_WANTED_SECONDS = 2.0
SETTLE_SECONDS = 30.0
DRAIN_SECONDS_MAX = 90.0


async def measure(
    endpoints: int,
    workers: int,
    seconds: float,
    *,
    rate: float = REQUESTS_PER_SECOND,
    calls_per_second_max: float = 20.0,
    settle: float = SETTLE_SECONDS,
) -> Findings:
    """One complete run, including setup and cleanup."""
    with tempfile.TemporaryDirectory(prefix="stoker-scale-") as folder:
        stage = Stage(Path(folder) / "state", calls_per_second_max=calls_per_second_max)
        async with stage.running():
            client = await stage.stack.client()
            said(f"{endpoints} endpoints with {workers} workers each are started")
            await start_all(client, stage.seed(endpoints, workers))
            await until_known(stage, client, endpoints)
            for seeded in stage.endpoints:
                for one in seeded.running:
                    stage.fake_workers.join(one, loaded=True)
            drive = Drive(stage, random.Random(1), rate=rate)
            traffic = asyncio.create_task(drive.traffic())
            said(f"{len(stage.fake_workers.workers)} workers report; {settle:.0f} s to settle")
            await asyncio.sleep(settle)
            findings = Findings(endpoints, workers)
            before, written = await engine_counts(stage), await events_written(stage, client)
            market_before = dict(stage.market.counts)
            gauges = Gauges(stage.pids() | {"load generator": os.getpid()})
            sampling = asyncio.create_task(gauges.run())
            telling = asyncio.create_task(tell(stage))
            said(f"measuring for {seconds:.0f} s")
            await drive.events(seconds)
            sampling.cancel()
            gauges.stop()
            findings.gauges = gauges
            findings.engine = {k: v - before.get(k, 0.0) for k, v in (await engine_counts(stage)).items()}
            findings.history_events = await events_written(stage, client) - written
            findings.market = {k: v - market_before.get(k, 0) for k, v in stage.market.counts.items()}
            traffic.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await traffic
            said("waiting for what is under way")
            await drive.drain(DRAIN_SECONDS_MAX)
            telling.cancel()
            said("checking that nothing was lost")
            await check(findings, stage, client)
            if keep := os.environ.get("STOKER_SCALE_LOGS"):
                for file in (stage.settings.state_dir / "logs").iterdir():
                    (Path(keep) / file.name).write_bytes(file.read_bytes())
    return findings


async def tell(stage: Stage) -> None:
    """Prints progress every half minute."""
    while True:
        await asyncio.sleep(30)
        asked, events = stage.clients.asked, stage.events
        taken = events.seconds().get("all", [])
        said(
            f"{asked.given} of {asked.sent} requests given, {stage.fake_workers.acknowledged} told, {stage.fake_workers.reports} reports"
            f" ({stage.fake_workers.refused} refused), {len(taken)} of {len(events.all)} events answered,"
            f" p50 {quantile(taken, 0.5):.2f} s, worst {quantile(taken, 1.0):.2f} s"
        )


def said(what: str) -> None:
    """Progress, on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def report(found: Findings) -> None:
    """The figures as tables."""
    gauges = found.gauges
    assert gauges is not None
    print("\n| decision latency | events | p50 | p90 | p99 | worst |\n|---|---|---|---|---|---|")
    for kind, taken in sorted(found.latencies.items()):
        cells = " | ".join(f"{quantile(taken, q) * 1000:,.0f} ms" for q in (0.5, 0.9, 0.99, 1.0))
        print(f"| {kind} | {len(taken)} | {cells} |")
    print("\n| process | CPU, cores | memory, MiB |\n|---|---|---|")
    for name, cores in gauges.cpu_cores.items():
        print(f"| {name} | {cores:.2f} | {gauges.rss_mib_max[name]:.0f} |")
    print(f"| everything else on the machine | {gauges.others_cores:.2f} | |")
    per_second = {name: value / gauges.seconds for name, value in found.engine.items()}
    print("\n| rate over the window | per second |\n|---|---|")
    for name, value in sorted(per_second.items()):
        print(f"| {name} | {value:,.1f} |")
    print(f"| history events | {found.history_events / gauges.seconds:,.0f} |")
    for name, count in sorted(found.market.items()):
        print(f"| market: {name} | {count / gauges.seconds:,.2f} |")
    lags = sorted(gauges.lags)
    print(f"\nload average {min(gauges.load_averages):.1f} to {max(gauges.load_averages):.1f}; ", end="")
    print(
        f"the load generator itself was late by p50 {quantile(lags, 0.5) * 1000:.0f} ms, p99 {quantile(lags, 0.99) * 1000:.0f} ms"
    )
    print(
        f"route calls answered at once: p50 {quantile(found.route_seconds, 0.5) * 1000:.1f} ms, p99 {quantile(found.route_seconds, 0.99) * 1000:.1f} ms"
    )
    for line in found.lines:
        print(line)
    print("\nthe slowest, in ms from one mark to the next:")
    for slow in found.slowest:
        print(f"  {slow}")
    p99 = quantile(found.latencies.get("all", []), 0.99)
    print(f"lost: {'; '.join(found.lost) or 'nothing'}")
    print(f"decision p99 {p99:.2f} s; wanted <= {P99_WANTED_SECONDS:g} s")


def main(argv: list[str] | None = None) -> int:
    """Run it; the exit code says whether anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoints", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=5.0, help="of the measurement itself")
    parser.add_argument(
        "--rate", type=float, default=REQUESTS_PER_SECOND, help="requests a second of a busy endpoint"
    )
    parser.add_argument("--quick", action="store_true", help="200 endpoints for one minute")
    asked = parser.parse_args(argv)
    endpoints, minutes = (200, 1.0) if asked.quick else (asked.endpoints, asked.minutes)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(30),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    print(facts())
    print(
        f"{endpoints} endpoints with {asked.workers} workers each, {minutes:g} minutes, {asked.rate:g} requests/s on each tenth"
    )
    found = uvloop.run(measure(endpoints, asked.workers, minutes * 60, rate=asked.rate))
    report(found)
    return 1 if found.lost else 0


if __name__ == "__main__":
    sys.exit(main())
