"""The engine's process."""

import asyncio
import math
import os
from collections.abc import Mapping

import structlog
from temporalio.client import Client

from activities.notices.deliver import Channel
from activities.notices.reporting import end_notifier
from engine.app import serve
from engine.settings import EngineSettings, Limits, Timing
from run.gc_tuning import tune_garbage_collector
from run.processes.temporal_server import connect_to, temporal_target
from run.roles.notices import start_notifier_worker
from run.roles.stopping import stop_event
from run.roles.tracing import interceptors_of, tracing_of
from run.settings import DeploymentSettings, ListenLimits
from run.state_folder.keys import load_keys
from run.worker_package import worker_package
from stoker_wire.security.loopback import is_loopback
from webserver.connections import ConnectionLimits

log = structlog.get_logger(__name__)


def limits_of(listen: ListenLimits) -> Limits:
    """The engine's limits from the settings."""
    return Limits(
        connections=ConnectionLimits(
            connections_max=listen.connections_max,
            idle_seconds_max=listen.idle_seconds_max,
            head_seconds_max=listen.head_seconds_max,
        ),
        body_bytes_max=listen.body_bytes_max,
        openai_body_bytes_max=listen.openai_body_bytes_max,
        openai_held_bytes_max=listen.openai_held_bytes_max,
        body_seconds_max=listen.body_seconds_max,
    )


async def run_engine(settings: DeploymentSettings) -> None:
    """Serve routing, worker reports and the console API until a stop signal."""
    stop = stop_event()
    tracing = tracing_of("engine")
    keys = load_keys(settings.state_dir, generate=False, role="engine", uses_vast=settings.uses_vast)
    channels = settings.notify.channels(os.environ)
    target = temporal_target(settings.temporal)
    client = await connect_to(target, interceptors=interceptors_of(tracing))
    trust = settings.engine.memo_trust_seconds
    engine = EngineSettings(
        accounts=keys.account_keys,
        secret=keys.secret,
        accounts_previous=keys.account_keys_previous,
        secrets_previous=keys.secrets_previous,
        rsa_private_key_pem=keys.signing_key_pem.encode(),
        ca_key_pem=keys.ca_key_pem.encode(),
        host=settings.engine.host,
        port=settings.engine.port,
        public_url=settings.engine.url,
        allowed_hosts=settings.engine.allowed_hosts,
        timing=Timing(memo_trust_seconds=math.inf if trust is None else trust),
        limits=limits_of(settings.engine.limits),
        saved_logs_dir=settings.saved_logs_dir,
        dashboard_url=settings.dashboard.url or "",
        worker_package=worker_package(),
        market_url=settings.market_url,
        market_key=keys.market_key,
        market_webhook_secret=keys.market_webhook_secret.encode(),
        request_log=settings.request_log_settings,
        sweep=settings.sweep.spec,
        sweep_ensure_seconds=settings.sweep.ensure_seconds,
        notices=settings.notify.plan(),
        channels=channels,
    )
    if not is_loopback(engine.host):
        log.warning(
            "engine.reachable_from_outside",
            host=engine.host,
            advice="it serves HTTP without TLS: put a TLS proxy in front of it and set engine.public_url",
        )
    log.info(
        "engine.listening",
        host=engine.host,
        port=engine.port,
        temporal=target.address,
        namespace=target.namespace,
        temporal_from=target.source,
    )
    tune_garbage_collector()
    notifier = await _start_notifier(client, settings, channels)
    await serve(engine, client, stop=stop, tracing=tracing)
    if notifier is not None:
        notifier.cancel()
        await asyncio.gather(notifier, return_exceptions=True)
    if tracing is not None:
        await asyncio.to_thread(tracing.close)


async def _start_notifier(
    client: Client, settings: DeploymentSettings, channels: Mapping[str, Channel]
) -> asyncio.Task[None] | None:
    """Carry the notifier in this engine, too, so that notices are sent while no Temporal worker runs."""
    if not channels:
        await end_notifier(client)
        return None
    if settings.worker.deployment is not None and settings.worker.build_id is None:
        log.info(
            "engine.carries_no_notifier",
            advice="give engines STOKER_BUILD_ID, too: then notices are sent while no Temporal worker runs",
        )
        return None
    return start_notifier_worker(client, settings, channels)
