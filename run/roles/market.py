"""The marketplace of this machine."""

from pathlib import Path

import structlog
from aiohttp import web

from market.host import StateInUse, UnsupportedMachine
from market.host.app import create_app
from market.host.serve import CONNECTIONS
from market.listening import listen
from run.faults import Fault
from run.keys import load_keys
from run.roles.stopping import stop_event
from run.settings import DevSettings

log = structlog.get_logger(__name__)

HOME = Path(__file__).parents[2]
"""Where the examples are: instances of the host marketplace find it as `STOKER_HOME`."""


async def run_market(settings: DevSettings) -> None:
    """Offer this machine until told to stop; then stop its instances, keeping their disks."""
    stop = stop_event()
    keys = load_keys(settings.state_dir, generate=False, role="market")
    host = settings.host_market_settings(market_key=keys.market_key, env={"STOKER_HOME": str(HOME)})
    runner = web.AppRunner(create_app(host), access_log=None, shutdown_timeout=2.0)
    try:
        await runner.setup()
    except (StateInUse, UnsupportedMachine) as fault:
        raise Fault(str(fault), exit_code=3) from fault
    server, door = await listen(runner, "127.0.0.1", settings.host_market.port, limits=CONNECTIONS)
    log.info("market.listening", port=settings.host_market.port, machines=len(host.machines))
    await stop.wait()
    server.close()
    door.close()
    await runner.cleanup()
