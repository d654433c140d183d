"""The three processes of a deployment: engine, Temporal worker, marketplace of this machine."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import structlog
from aiohttp import web

from activities.instances import MarketActivities
from activities.secrets import DeploymentSecrets
from engine.app import serve
from engine.settings import EngineSettings
from market.host.app import create_app
from market.host.store import StateInUse
from market.vast import VastMarket
from run.faults import Fault
from run.keys import load_keys
from run.settings import DevSettings
from run.temporal_server import connect
from workflows.sweep import ensure_sweep
from workflows.worker import WorkerSettings, build_workers, forwarding_runtime

log = structlog.get_logger(__name__)

HOME = Path(__file__).parents[1]
"""Where the examples are: instances of the host marketplace find it as `STOKER_HOME`."""


def _stop_event() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


async def run_engine(settings: DevSettings) -> None:
    """Serve routing, worker reports and the console API until told to stop."""
    stop = _stop_event()
    keys = load_keys(settings.state_dir, generate=False)
    client = await connect(settings.temporal)
    engine = EngineSettings(
        accounts=keys.account_keys,
        secret=keys.secret,
        rsa_private_key_pem=keys.signing_key_pem.encode(),
        host=settings.engine.host,
        port=settings.engine.port,
        public_url=settings.engine.url,
    )
    log.info("engine.listening", host=engine.host, port=engine.port)
    await serve(engine, client, stop=stop)


async def run_worker(settings: DevSettings) -> None:
    """Carry the endpoints' workflows and the market calls until told to stop."""
    stop = _stop_event()
    keys = load_keys(settings.state_dir, generate=False)
    client = await connect(settings.temporal, runtime=forwarding_runtime())
    market = VastMarket(settings.market_url, keys.market_key)
    secrets = DeploymentSecrets(hmac_secret=keys.secret, named=keys.named, report_address=settings.engine.url)
    workers = build_workers(
        client,
        MarketActivities(market, secrets),
        WorkerSettings(market_calls_per_second=settings.market.calls_per_second_max),
    )
    running = [asyncio.create_task(worker.run()) for worker in workers]
    await ensure_sweep(client)
    log.info("worker.polling", temporal=settings.temporal.address, namespace=settings.temporal.namespace)
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait({*running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*(worker.shutdown() for worker in workers))
    results = await asyncio.gather(*running, return_exceptions=True)
    stopping.cancel()
    await market.close()
    log.info("worker.stopped")
    for result in results:
        if isinstance(result, BaseException) and done != {stopping}:
            raise result
    # The core's threads may still touch the interpreter while it is torn down, and crash it; all is flushed and closed.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


async def run_market(settings: DevSettings) -> None:
    """Offer this machine until told to stop; then stop its instances, keeping their disks."""
    stop = _stop_event()
    keys = load_keys(settings.state_dir, generate=False)
    host = settings.host_market_settings(market_key=keys.market_key, env={"STOKER_HOME": str(HOME)})
    runner = web.AppRunner(create_app(host), access_log=None, shutdown_timeout=2.0)
    try:
        await runner.setup()
    except StateInUse as fault:
        raise Fault(str(fault), exit_code=3) from fault
    await web.TCPSite(runner, "127.0.0.1", settings.host_market.port).start()
    log.info("market.listening", port=settings.host_market.port, machines=len(host.machines))
    await stop.wait()
    await runner.cleanup()
