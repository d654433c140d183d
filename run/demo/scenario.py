"""The demo's scenario: from zero workers to a burst and back to zero, without instances left."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

import stoker
from market.vast.client import VastMarket
from run.commands.dev import DevStack, banner
from run.demo.chaos import kill_each_once
from run.demo.fleet_sampler import FleetSampler
from run.demo.load_generator import LoadGenerator
from run.demo.picture import save_picture
from run.demo.report import print_decisions, print_report
from run.demo.samples import Record
from run.demo.settings import demo_settings
from run.demo.traffic import burst
from run.errors import CommandError
from run.settings import DeploymentSettings
from stoker.cli.output import Terminal

ENDPOINT = "demo"
REQUESTS = 400
PARAMETERS: dict[str, Any] = {
    "min_load": 0.0,
    "min_workers": 2,
    "max_workers": 6,
    "cold_mult": 1.0,
    "target_util": 0.8,
    "inactivity_timeout": 12.0,
    "max_queue_time": 1.5,
    "target_queue_time": 2.0,
}
WORKERGROUP: dict[str, Any] = {
    "template_hash": "text-model",
    "search_params": "num_gpus=1",
    "gpu_ram": 0.0,
    "test_workers": 3,
}


async def run_demo(
    settings: DeploymentSettings, *, state_dir: Path, chaos: bool, picture: Path, keep: bool = False
) -> None:
    """Run the demo.

    Args:
        keep: before the endpoint is deleted, wait for Enter, so that its page on the dashboard can be looked at.

    Raises:
        CommandError: a request failed, or an expected state was not reached, exit code 1; or a signal, 130 or 143.
    """
    if picture.suffix != ".svg":
        raise CommandError(f"--picture: should end with .svg, because the charts are SVG (got {picture})")
    console = Terminal(highlight=False)
    stack = DevStack(demo_settings(settings, state_dir))
    task = asyncio.current_task()
    assert task is not None
    received: list[int] = []

    def interrupt(number: int) -> None:
        received.append(number)
        if len(received) == 1:  # a second one would interrupt the stop of the processes
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupt, number)
    began = time.monotonic()
    try:
        await stack.start()
        console.print(banner(stack))
        await _run_scenario(stack, console, chaos=chaos, picture=picture, keep=keep)
    except TimeoutError as fault:
        raise CommandError(f"the demo did not finish: {fault}", exit_code=1) from fault
    except asyncio.CancelledError:
        code = 128 + received[0]
        raise CommandError("the demo was interrupted; every process has ended", exit_code=code) from None
    finally:
        await stack.stop()
    console.print(f"done in {time.monotonic() - began:.0f} s; every process has ended")


async def _run_scenario(stack: DevStack, console: Console, *, chaos: bool, picture: Path, keep: bool) -> None:
    assert stack.keys is not None
    traffic = burst(requests=REQUESTS)
    record = Record()
    async with (
        stoker.Serverless(stack.keys.account_key, url=stack.settings.engine.url) as client,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        made = await client.endpoints.create(ENDPOINT, **PARAMETERS)
        await client.workergroups.create(made.id, **WORKERGROUP)
        endpoint = await client.get_endpoint(ENDPOINT)
        if (page := stack.settings.dashboard.url) is not None:
            console.print(f"watch it: {page}/endpoints/{made.id}?range=10m (sign in with the account key)")
        async with (
            FleetSampler(client, made.id, record) as sampler,
            _decisions_on_timeout(client, made.id, console),
        ):
            generator = LoadGenerator(endpoint, sampler, record)
            sampler.start_phase("no worker yet: the first request arrives")
            await generator.request(16)
            sampler.start_phase("served; no load until the workers are cold")
            await sampler.wait_until(
                lambda seen: seen.hot == 0 and seen.booting == 0 and seen.draining == 0 and seen.cold >= 2,
                seconds_max=60,
                what="two cold workers and no hot one",
            )
            sampler.start_phase("a burst: cold workers start, more are rented")
            playing = asyncio.create_task(generator.play(traffic.arrivals))
            await sampler.wait_until(lambda seen: seen.hot >= 2, seconds_max=60, what="two hot workers")
            if chaos:
                await kill_each_once(stack, client, made.id, console)
            await playing
            sampler.start_phase("no load: workers drain and stop")
            await sampler.wait_until(
                lambda seen: seen.hot == 0 and seen.booting == 0 and seen.draining == 0,
                seconds_max=60,
                what="zero hot workers",
            )
            costs = await client.endpoints.costs(made.id)
            decisions = await client.endpoints.decisions(made.id, tail=200)
            await save_picture(stack, made.id, picture, seconds=sampler.clock_s)
            if keep:
                console.print("press Enter to delete the endpoint and end")
                await _enter_pressed()
            sampler.start_phase("the endpoint is deleted: all instances are destroyed")
            await client.endpoints.delete(made.id)
            left = await _until_released(stack)
        charged = await http.get(
            f"{stack.settings.market_url}/host/charges/",
            headers={"Authorization": f"Bearer {stack.keys.market_key}"},
        )
    console.print(f"instances left on the marketplace: {left}")
    print_report(
        record,
        costs,
        decisions,
        charged.json().get("total_dollars", 0.0),
        source=traffic.source,
        console=console,
    )
    console.print(f"picture: {picture}")
    _check_result(record, left)


async def _enter_pressed() -> None:
    """Wait for a line or the end of standard input. Ctrl-C ends the wait, which a thread of the loop would outlast."""
    loop, pressed = asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        os.read(sys.stdin.fileno(), 1024)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(pressed.set)

    threading.Thread(target=read, name="enter", daemon=True).start()
    await pressed.wait()


@contextlib.asynccontextmanager
async def _decisions_on_timeout(
    client: stoker.Serverless, endpoint_id: int, console: Console
) -> AsyncIterator[None]:
    """Print the decisions and the status if a wait times out."""
    try:
        yield
    except TimeoutError:
        print_decisions(await client.endpoints.decisions(endpoint_id, tail=200), console=console)
        console.print_json(data=await client.endpoints.status(endpoint_id))
        raise


async def _until_released(stack: DevStack) -> int:
    """Wait up to a minute until the marketplace lists no instance, and return the number that is left."""
    assert stack.keys is not None
    market = VastMarket(stack.settings.market_url, stack.keys.market_key)
    try:
        deadline = time.monotonic() + 60
        while True:
            left = len(await market.list())
            if left == 0 or time.monotonic() > deadline:
                return left
            await asyncio.sleep(0.2)
    finally:
        await market.close()


def _check_result(record: Record, left: int) -> None:
    faults = []
    if record.failures:
        faults.append(f"{len(record.failures)} requests failed")
    if left:
        faults.append(f"{left} instances are left on the marketplace")
    if max(sample.hot for sample in record.samples) < 3:
        faults.append("the burst never had three hot workers")
    if faults:
        raise CommandError("; ".join(faults), exit_code=1)
