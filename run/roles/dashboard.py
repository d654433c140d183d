"""The dashboard's process."""

import os
from collections.abc import Mapping

import structlog

from dashboard.app import serve
from dashboard.settings import DashboardSettings
from run.errors import CommandError
from run.roles.stopping import stop_event
from run.settings import DeploymentSettings
from run.state_folder.keys import PROMETHEUS_AUTHORIZATION, load_keys
from stoker_wire.security.loopback import is_loopback

log = structlog.get_logger(__name__)


async def run_dashboard(settings: DeploymentSettings) -> None:
    """Serve the web page until a stop signal."""
    stop = stop_event()
    listen = settings.dashboard
    if listen.port is None:
        raise CommandError("dashboard.port is not set; set it in the settings file, for example to 8090")
    keys = load_keys(settings.state_dir, generate=False, role="dashboard")
    temporal = settings.temporal
    page = DashboardSettings(
        accounts=keys.account_keys,
        engine_url=listen.engine_url or settings.engine.own_url,
        host=listen.host,
        port=listen.port,
        public_url=listen.public_url or "",
        allowed_hosts=listen.allowed_hosts,
        temporal_ui_url=f"{temporal.ui_url}/namespaces/{temporal.namespace}/workflows"
        if temporal.ui_url
        else "",
        prometheus_url=listen.prometheus_url or "",
        prometheus_labels=listen.prometheus_labels,
        prometheus_authorization=_prometheus_authorization(os.environ),
        history_file=settings.state_dir / "dashboard.sqlite",
    )
    if not is_loopback(page.host) and not page.public_url.startswith("https://"):
        log.warning(
            "dashboard.reachable_from_outside",
            host=page.host,
            advice="it serves HTTP without TLS: put a TLS proxy in front of it and set dashboard.public_url",
        )
    log.info("dashboard.listening", host=page.host, port=page.port, engine=page.engine_url)
    await serve(page, stop=stop)


def _prometheus_authorization(environ: Mapping[str, str]) -> str:
    """The header's value from the environment; empty: none.

    Raises:
        CommandError: a header cannot have this value.
    """
    value = environ.get(PROMETHEUS_AUTHORIZATION, "").strip()
    if value and (not value.isascii() or not value.isprintable() or " " not in value):
        raise CommandError(
            f"{PROMETHEUS_AUTHORIZATION} is no value of an Authorization header; set it to `Bearer TOKEN`, or to `Basic`"
            " and the base64 of USER:PASSWORD"
        )
    return value
