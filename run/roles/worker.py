"""The Temporal worker's process."""

import asyncio
import os
import sys

import structlog

from activities.instances import MarketActivities
from activities.safety_nets import SafetyNets, ensure_sweep
from activities.saved_logs import SavedLogs
from activities.secrets import DeploymentSecrets
from market.ownership import DeploymentMarket
from run.gc_tuning import tune_garbage_collector
from run.processes.temporal_server import connect_to, temporal_target
from run.roles.stopping import stop_event
from run.settings import DevSettings
from run.state_folder.identity import ensure_identity
from run.state_folder.keys import load_keys
from workflows.hosting.worker import WorkerSettings, build_workers, forwarding_runtime

log = structlog.get_logger(__name__)


async def run_worker(settings: DevSettings) -> None:
    """Run endpoint workflows, the planner and marketplace calls until a stop signal."""
    stop = stop_event()
    keys = load_keys(settings.state_dir, generate=False, role="worker", uses_vast=settings.uses_vast)
    target = temporal_target(settings.temporal)
    client = await connect_to(target, runtime=forwarding_runtime())
    deployment = await ensure_identity(client, settings.state_dir)
    market = DeploymentMarket(settings.market_client(keys.market_key), deployment)
    secrets = DeploymentSecrets(hmac_secret=keys.secret, named=keys.named, report_address=settings.engine.url)
    workers = build_workers(
        client,
        MarketActivities(market, secrets, SavedLogs(settings.saved_logs_dir)),
        WorkerSettings(
            market_calls_per_second=settings.market.calls_per_second_max, version=settings.worker.version()
        ),
    )
    tune_garbage_collector()
    running = [asyncio.create_task(worker.run()) for worker in workers]
    sweep = settings.sweep.spec
    await ensure_sweep(client, sweep, configure=True)
    nets = asyncio.create_task(
        SafetyNets(client, sweep, every_seconds=settings.sweep.ensure_seconds).run(), name="safety nets"
    )
    log.info(
        "worker.polling",
        temporal=target.address,
        namespace=target.namespace,
        temporal_from=target.source,
        deployment=deployment,
        worker_deployment=settings.worker.deployment,
        build_id=settings.worker.build_id,
    )
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait({*running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*(worker.shutdown() for worker in workers))
    results = await asyncio.gather(*running, return_exceptions=True)
    stopping.cancel()
    nets.cancel()
    await market.close()
    log.info("worker.stopped")
    for result in results:
        if isinstance(result, BaseException) and done != {stopping}:
            raise result
    # Threads of Temporal's core can crash an interpreter that shuts down. Everything is closed, so exit at once.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
