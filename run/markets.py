"""The marketplace that the settings name."""

from market.vast.client import VastMarket
from run.faults import Fault
from run.settings import DevSettings


def market_of(settings: DevSettings, key: str) -> VastMarket:
    """A client of the marketplace.

    Raises:
        Fault: the environment names a proxy that cannot be used.
    """
    try:
        return VastMarket(settings.market_url, key)
    except ValueError as fault:
        raise Fault(str(fault)) from fault
