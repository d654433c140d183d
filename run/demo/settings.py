"""The demo's settings: `temporal-dev.yaml` with a new state folder and free ports."""

import shutil
from pathlib import Path

from run.errors import CommandError
from run.settings import DeploymentSettings
from run.state_folder.lock import free_port, require_free


def demo_settings(settings: DeploymentSettings, state_dir: Path) -> DeploymentSettings:
    """The settings with an empty state folder, and with free ports where configured ones are in use."""
    if (state_dir / "stokerd.lock").exists() or (state_dir / "keys.json").exists():
        shutil.rmtree(state_dir)  # only a folder of an earlier demo
    host = settings.engine.host
    temporal = settings.temporal.model_copy(
        update={
            "port": _free(settings.temporal.port),
            "ui_port": _free(settings.temporal.ui_port or 8233),
        }
    )
    return settings.model_copy(
        update={
            "state_dir": state_dir,
            "temporal": temporal,
            "engine": settings.engine.model_copy(
                update={"port": _free(settings.engine.port, host), "public_url": None}
            ),
            "dashboard": settings.dashboard.model_copy(
                update={"port": _free(settings.dashboard.port or 8090), "public_url": None}
            ),
            "host_market": settings.host_market.model_copy(update={"port": _free(settings.host_market.port)}),
            "market": settings.market.model_copy(update={"kind": "host"}),
        }
    )


def _free(port: int, host: str = "127.0.0.1") -> int:
    try:
        require_free({"port": (host, port)})
    except CommandError:
        return free_port(host)
    return port
