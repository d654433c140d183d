"""Time from an event to the marketplace call: `python -m benchmarks.reaction [--quick]`.

Real processes on this machine: client, engine, Temporal, worker, host marketplace. The end of each measurement is the
marketplace's own log entry, so the times include the call; a wake includes the start of the worker's process
(`wake` measures it up to the call, beside its floor).
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path

import uvloop

import stoker
from benchmarks.engine.machine import facts
from market.ownership import deployment_prefix
from run.commands.dev import DevStack
from run.demo.settings import demo_settings
from run.settings import load_settings

ROOT = Path(__file__).parents[1]
ROUTE = "/v1/completions"
START_WANTED_MS, CREATE_WANTED_MS = 60.0, 300.0


class MarketLog:
    """The marketplace's events, as they are written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def after(self, event: str, at: float, label: str, *, seconds_max: float = 30) -> float:
        """Unix time of the first such event for the label after `at`."""
        async with asyncio.timeout(seconds_max):
            while True:
                for line in self._path.read_text().splitlines():
                    said = json.loads(line) if line.startswith("{") else {}
                    if said.get("event") != event or not said.get("label", "").startswith(label):
                        continue
                    when = datetime.fromisoformat(said["timestamp"]).timestamp()
                    if when > at:
                        return when
                await asyncio.sleep(0.02)


async def request(endpoint: stoker.Endpoint, tokens: int) -> None:
    """One request, answered."""
    await endpoint.request(ROUTE, {"prompt": "The lamp ", "max_tokens": tokens}, cost=tokens, timeout=120)


async def deployed(client: stoker.Serverless, name: str, **parameters: object) -> stoker.Endpoint:
    """An endpoint over the text model."""
    made = await client.endpoints.create(name, **parameters)
    await client.workergroups.create(
        made.id, template_hash="text-model", search_params="gpu_name=CPU_S", gpu_ram=0.0
    )
    return await client.get_endpoint(name)


async def until_status(client: stoker.Serverless, endpoint: stoker.Endpoint, status: str) -> None:
    """Return once every worker has this status."""
    deadline = time.monotonic() + 60
    while True:
        workers = await client.endpoints.workers(endpoint.id)
        if workers and all(worker.status == status for worker in workers):
            return
        if time.monotonic() > deadline:
            last = [line["reason"] for line in await client.endpoints.decisions(endpoint.id, tail=5)]
            raise TimeoutError(f"{workers} are not {status} after 60 s; last decisions: {last}")
        await asyncio.sleep(0.05)


async def starts(client: stoker.Serverless, log: MarketLog, labels: str, rounds: int) -> list[float]:
    """Milliseconds from a request at zero hot workers to the process of the woken worker."""
    endpoint = await deployed(
        client, "wake", min_load=0.0, min_workers=1, max_workers=1, cold_mult=1.0, inactivity_timeout=1.0
    )
    await request(endpoint, 4)
    taken = []
    for _ in range(rounds):
        await until_status(client, endpoint, "stopped")
        sent = time.time()
        asking = asyncio.create_task(request(endpoint, 4))
        taken.append((await log.after("instance_started", sent, f"{labels}wake:") - sent) * 1000)
        await asking
    await client.endpoints.delete(endpoint.id)
    return taken


async def creates(client: stoker.Serverless, log: MarketLog, labels: str, rounds: int) -> list[float]:
    """Milliseconds from a burst that the one hot worker cannot clear in time to the create call."""
    taken = []
    for number in range(rounds):
        name = f"grow{number}"
        endpoint = await deployed(
            client,
            name,
            min_load=1.0,
            min_workers=1,
            max_workers=2,
            cold_mult=1.0,
            max_queue_time=0.5,
            target_queue_time=1.0,
        )
        await request(endpoint, 4)
        await until_status(client, endpoint, "idle")
        await asyncio.sleep(1.0)  # a quiet second, so that the burst is the only event
        sent = time.time()
        burst = [asyncio.create_task(request(endpoint, 32)) for _ in range(30)]
        taken.append((await log.after("instance_created", sent, f"{labels}{name}:") - sent) * 1000)
        await asyncio.gather(*burst)
        await client.endpoints.delete(endpoint.id)
    return taken


def report(title: str, taken: list[float], wanted_ms: float) -> None:
    """Median, range and goal."""
    ordered = sorted(taken)
    print(
        f"{title}: p50 {statistics.median(ordered):.0f} ms, min {ordered[0]:.0f}, max {ordered[-1]:.0f}"
        f" ({len(ordered)} rounds); wanted p50 <= {wanted_ms:.0f} ms"
    )


async def main(*, quick: bool) -> None:
    """Both reactions, on one deployment."""
    print(facts())
    settings = load_settings(ROOT / "temporal-dev.yaml")
    with tempfile.TemporaryDirectory() as folder:
        stack = DevStack(demo_settings(settings, Path(folder) / "state"))
        await stack.start()
        try:
            assert stack.keys is not None
            labels = deployment_prefix(stack.deployment)
            log = MarketLog(stack.state_dir / "logs" / "market.log")
            async with stoker.Serverless(stack.keys.account_key, url=stack.settings.engine.url) as client:
                woken = await starts(client, log, labels, 3 if quick else 10)
                grown = await creates(client, log, labels, 2 if quick else 6)
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await stack.stop()
    report("request at zero hot workers -> worker's process started", woken, START_WANTED_MS)
    report("queue over target -> create call", grown, CREATE_WANTED_MS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    uvloop.run(main(quick=parser.parse_args().quick))
