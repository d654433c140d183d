"""The host marketplace's process."""

import os

import structlog
from pydantic import ValidationError

from hosts import StateDamaged, StateInUse, UnsupportedMachine
from hosts.serve import serve
from run.errors import CommandError
from run.packaged_files import HOME
from run.processes.proxy_environment import proxy_environment
from run.roles.stopping import stop_event
from run.settings import DeploymentSettings, describe_model_error
from run.state_folder.keys import load_keys
from run.state_folder.lock import require_free

log = structlog.get_logger(__name__)


async def run_host_market(settings: DeploymentSettings) -> None:
    """Offer this machine until a stop signal; then stop the instances and keep their disks."""
    stop = stop_event()
    keys = load_keys(settings.state_dir, generate=False, role="market")
    try:
        host = settings.host_market_settings(
            market_key=keys.market_key, env=proxy_environment(os.environ) | {"STOKER_HOME": str(HOME)}
        )
    except ValidationError as fault:
        # The settings file was validated before, so only the key can be invalid.
        raise CommandError(
            f"the marketplace's key (STOKER_MARKET_KEY, or market_key in keys.json): {describe_model_error(fault)}"
        ) from None
    port = settings.host_market.port
    require_free({"host_market.port": ("127.0.0.1", port)})

    def listening(_: str) -> None:
        log.info("market.listening", port=port, machines=len(host.machines))

    try:
        await serve(host, port=port, ready=listening, stop=stop)
    except (StateDamaged, StateInUse, UnsupportedMachine) as fault:
        raise CommandError(str(fault), exit_code=3) from fault
