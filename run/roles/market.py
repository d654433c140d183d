"""The marketplace of this machine."""

from pathlib import Path

import structlog
from pydantic import ValidationError

from hosts import StateDamaged, StateInUse, UnsupportedMachine
from hosts.serve import serve
from run.faults import Fault
from run.roles.stopping import stop_event
from run.settings import DevSettings, without_place
from run.state_folder.keys import load_keys
from run.state_folder.lock import require_free

log = structlog.get_logger(__name__)

HOME = Path(__file__).parents[2]
"""Where the examples are: instances of the host marketplace find it as `STOKER_HOME`."""


async def run_market(settings: DevSettings) -> None:
    """Offer this machine until told to stop; then stop its instances, keeping their disks."""
    stop = stop_event()
    keys = load_keys(settings.state_dir, generate=False, role="market")
    try:
        host = settings.host_market_settings(market_key=keys.market_key, env={"STOKER_HOME": str(HOME)})
    except ValidationError as fault:
        # The rest was checked when the file was read.
        raise Fault(
            f"the marketplace's key (STOKER_MARKET_KEY, or market_key in keys.json): {without_place(fault)}"
        ) from None
    port = settings.host_market.port
    require_free({"host_market.port": ("127.0.0.1", port)})

    def listening(_: str) -> None:
        log.info("webserver.limits", port=port, machines=len(host.machines))

    try:
        await serve(host, port=port, ready=listening, stop=stop)
    except (StateDamaged, StateInUse, UnsupportedMachine) as fault:
        raise Fault(str(fault), exit_code=3) from fault
