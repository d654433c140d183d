"""The port to a marketplace: the `Market` protocol and its errors.

MarketError
├── OfferGone            the offer is not available: choose another
├── InstanceGone         the instance does not exist
├── Refused              bad request, unknown template, no credit, forbidden: a retry cannot succeed
│   └── Unauthorised     the market key is wrong
└── Unavailable          the marketplace cannot answer now: retry
    └── RateLimited      retry after `retry_after_s`, if given
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from stoker_wire.errors.picklable import PicklableError
from stoker_wire.market import Charge, Instance, Offer, Template


class MarketError(PicklableError, Exception):
    """A marketplace call failed. The message never contains a key, a token or a response body."""

    final = False


class OfferGone(MarketError):
    """The offer is no longer available."""

    final = True


class InstanceGone(MarketError):
    """The instance does not exist."""

    final = True


class Refused(MarketError):
    """The marketplace refused the call; a retry cannot succeed. `code` is its error code."""

    final = True

    def __init__(self, message: str, *, code: str = "") -> None:
        self.code = code
        super().__init__(message)


class Unauthorised(Refused):
    """The marketplace does not accept the key."""


class Unavailable(MarketError):
    """The marketplace cannot answer now: network error, timeout, 5xx."""


class RateLimited(Unavailable):
    """Too many requests (429). `retry_after_s` is the marketplace's delay in seconds, if given."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferQuery:
    """A search for offers. `filters` has the API's form, `{field: {op: value}}`, from `market.query`."""

    filters: Mapping[str, Any]
    order: tuple[tuple[str, str], ...] = (("dlperf_per_dphtotal", "desc"),)
    limit: int = 64
    disk_gb: float = 16.0
    type: str = "on-demand"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """The code to run on a rented offer. `env` contains secrets: an activity builds it, and it is never logged."""

    label: str
    template_hash: str | None = None
    template_id: int | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    disk_gb: float = 16.0
    image: str | None = None
    onstart: str | None = None
    args: tuple[str, ...] | None = None
    runtype: str | None = None
    bid_dollars_per_hour: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Market(Protocol):
    """A marketplace of GPU instances. Every method raises MarketError."""

    async def search(self, query: OfferQuery) -> list[Offer]:
        """Available offers that match, in the query's order."""
        ...

    async def create(self, offer_id: int, launch: Launch) -> int:
        """Rent the offer and return the new instance's id. Not idempotent: look the label up before a retry."""
        ...

    async def start(self, instance_id: int) -> None:
        """Request the state `running`."""
        ...

    async def stop(self, instance_id: int) -> None:
        """Request the state `stopped`; the disk is kept."""
        ...

    async def reboot(self, instance_id: int) -> None:
        """Restart the container."""
        ...

    async def destroy(self, instance_id: int) -> None:
        """Destroy the instance and its disk. Succeeds if the instance does not exist."""
        ...

    async def update_template(self, instance_id: int, launch: Launch) -> None:
        """Change the code that the instance runs from its next start on; machine and disk are kept."""
        ...

    async def relabel(self, instance_id: int, label: str) -> None:
        """Change the instance's label."""
        ...

    async def show(self, instance_id: int) -> Instance:
        """The instance's current state."""
        ...

    async def list(self, *, label_prefix: str = "") -> list[Instance]:
        """All instances of the account whose label starts with the prefix. For large accounts it can take a minute."""
        ...

    async def labelled(self, labels: Sequence[str]) -> Sequence[Instance]:
        """The instances whose label is one of these, as they are after the call."""
        ...

    async def charges(self, *, label_prefix: str = "", since: float = 0.0) -> Sequence[Charge]:
        """The total bill of each instance whose label starts with the prefix, destroyed ones included.

        Instances destroyed before `since` (Unix seconds) may be left out.
        """
        ...

    async def template(self, *, hash_id: str | None = None, id: int | None = None) -> Template:  # noqa: A002
        """The template. Raises Refused with code `no_such_template` if it does not exist."""
        ...

    async def logs(self, instance_id: int, *, tail: int = 200) -> str:
        """The last `tail` lines of the instance's log."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...
