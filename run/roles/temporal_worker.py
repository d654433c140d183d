"""The Temporal worker's process."""

import asyncio
import contextlib
import os
import socket
import sys

import structlog

from activities.instances import MarketActivities
from activities.notices.reporting import AlertReporter
from activities.saved_logs import SavedLogs
from activities.secrets import DeploymentSecrets
from activities.sweep_watchdog import SweepWatchdog, ensure_sweep
from market.ownership import DeploymentMarket
from run.errors import CommandError
from run.gc_tuning import tune_garbage_collector
from run.processes.temporal_server import connect_to, temporal_target
from run.roles.notices import WorkerAlerts, start_notifier_worker
from run.roles.stopping import stop_event
from run.roles.tracing import interceptors_of, tracing_of
from run.settings import DeploymentSettings, WorkerChoice
from run.state_folder.identity import ensure_identity
from run.state_folder.keys import load_keys
from stoker_wire.security.loopback import is_loopback
from webserver.metrics_page import served_page
from workflows.temporal_worker.metrics import TemporalWorkerMetrics
from workflows.temporal_worker.worker import WorkerSettings, build_workers, forwarding_runtime

log = structlog.get_logger(__name__)


async def run_worker(settings: DeploymentSettings) -> None:
    """Run endpoint workflows, the planner and marketplace calls until a stop signal."""
    stop = stop_event()
    tracing = tracing_of("worker")
    keys = load_keys(settings.state_dir, generate=False, role="worker", uses_vast=settings.uses_vast)
    channels = settings.notify.channels(os.environ)
    metrics = TemporalWorkerMetrics(settings.worker.build_id or "")
    pages = contextlib.AsyncExitStack()
    await _serve_metrics(settings.worker, metrics, pages)
    target = temporal_target(settings.temporal)
    client = await connect_to(target, runtime=forwarding_runtime(), interceptors=interceptors_of(tracing))
    deployment = await ensure_identity(client, settings.state_dir)
    market = DeploymentMarket(
        settings.market_client(keys.market_key, on_call=metrics.market_call), deployment
    )
    secrets = DeploymentSecrets(hmac_secret=keys.secret, named=keys.named, report_address=settings.engine.url)
    calls_per_second_max = settings.market.calls_per_second_max
    workers = build_workers(
        client,
        MarketActivities(
            market, secrets, SavedLogs(settings.saved_logs_dir), starts_per_second=calls_per_second_max
        ),
        WorkerSettings(market_calls_per_second=calls_per_second_max, version=settings.worker.version()),
        metrics,
    )
    tune_garbage_collector()
    running = [asyncio.create_task(worker.run()) for worker in workers]
    sweep = settings.sweep.spec
    await ensure_sweep(client, sweep, configure=True)
    watchdog = SweepWatchdog(client, sweep, every_seconds=settings.sweep.ensure_seconds)
    side_tasks = [asyncio.create_task(watchdog.run(), name="sweep watchdog")]
    plan = settings.notify.plan()
    reporter = (
        None if plan is None else AlertReporter(client, plan, role="worker", place=socket.gethostname())
    )
    if reporter is not None:
        side_tasks += [
            start_notifier_worker(client, settings, channels),
            asyncio.create_task(reporter.run(WorkerAlerts(metrics).active), name="alert reports"),
        ]
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
    for task in side_tasks:
        task.cancel()
    await asyncio.gather(*side_tasks, return_exceptions=True)
    if reporter is not None and done == {stopping}:
        await reporter.stop()
    await market.close()
    await pages.aclose()
    if tracing is not None:
        await asyncio.to_thread(tracing.close)
    log.info("worker.stopped")
    for result in results:
        if isinstance(result, BaseException) and done != {stopping}:
            raise result
    # Threads of Temporal's core can crash an interpreter that shuts down. Everything is closed, so exit at once.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


async def _serve_metrics(
    choice: WorkerChoice, metrics: TemporalWorkerMetrics, pages: contextlib.AsyncExitStack
) -> None:
    """Serve `/metrics` if the settings name a port. First of all: a worker that waits for Temporal is alive too.

    Raises:
        CommandError: the address cannot be listened on.
    """
    if choice.metrics_port is None:
        return
    host, port = choice.metrics_host, choice.metrics_port
    try:
        url = await pages.enter_async_context(served_page(metrics.registry, host, port))
    except OSError as fault:
        raise CommandError(
            f"worker.metrics_port: cannot listen on {host}:{port} ({fault.strerror or fault}); "
            "choose another port for each worker of this machine"
        ) from None
    if not is_loopback(host):
        log.warning("worker.metrics_reachable_from_outside", host=host, advice="the page needs no key")
    log.info("worker.metrics", url=url)
