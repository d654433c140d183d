"""What stoker needs of a marketplace, in its own words.

MarketError
├── OfferGone            the offer was rented by someone else: choose another
├── InstanceGone         no such instance (any more)
├── Refused              bad request, unknown template, no credit, forbidden: trying again changes nothing
│   └── Unauthorised     the market key is wrong
└── Unavailable          the market cannot answer now: try again
    └── RateLimited      … after `retry_after_s` if it said so
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from stoker_wire.market import Charge, Instance, Offer, Template
from stoker_wire.picklable import PicklableError


class MarketError(PicklableError, Exception):
    """A marketplace call failed. The message never holds a key, a token or a response body."""

    final = False


class OfferGone(MarketError):
    """The offer cannot be rented any more."""

    final = True


class InstanceGone(MarketError):
    """There is no such instance."""

    final = True


class Refused(MarketError):
    """The market understood and said no; asking again changes nothing. `code` is the market's own error code."""

    final = True

    def __init__(self, message: str, *, code: str = "") -> None:
        self.code = code
        super().__init__(message)


class Unauthorised(Refused):
    """The market does not know the key."""


class Unavailable(MarketError):
    """No answer, or an answer that says to come back: network, timeout, 5xx."""


class RateLimited(Unavailable):
    """429."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferQuery:
    """Filters in the API's form, `{field: {op: value}}`, from `market.query`."""

    filters: Mapping[str, Any]
    order: tuple[tuple[str, str], ...] = (("dlperf_per_dphtotal", "desc"),)
    limit: int = 64
    disk_gb: float = 16.0
    type: str = "on-demand"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to run on a rented offer. `env` holds secrets: it is built in an activity and never logged."""

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
    """A marketplace of GPU instances. Every call raises MarketError."""

    async def search(self, query: OfferQuery) -> list[Offer]:
        """Offers that match now, best first in the query's order."""
        ...

    async def create(self, offer_id: int, launch: Launch) -> int:
        """Rent the offer; answers the new instance's id. Not idempotent: look the label up first."""
        ...

    async def start(self, instance_id: int) -> None:
        """Want it running."""
        ...

    async def stop(self, instance_id: int) -> None:
        """Want it stopped; its disk stays."""
        ...

    async def reboot(self, instance_id: int) -> None:
        """Stop and start its container."""
        ...

    async def destroy(self, instance_id: int) -> None:
        """Release it. An instance that is gone already is a success."""
        ...

    async def update_template(self, instance_id: int, launch: Launch) -> None:
        """Change what it runs at its next start, keeping machine and disk."""
        ...

    async def relabel(self, instance_id: int, label: str) -> None:
        """Change the instance's label."""
        ...

    async def show(self, instance_id: int) -> Instance:
        """The instance as it is now."""
        ...

    async def list(self, *, label_prefix: str = "") -> list[Instance]:
        """All instances of this account whose label starts with the prefix, all pages. In no hurry: of a large account,
        the answer may take a minute."""
        ...

    async def labelled(self, labels: Sequence[str]) -> Sequence[Instance]:
        """The instances that carry exactly one of these labels, now."""
        ...

    async def charges(self, *, label_prefix: str = "", since: float = 0.0) -> Sequence[Charge]:
        """What instances of such labels, gone ones too, were billed in all; `since`: those that are gone longer may be left out."""
        ...

    async def template(self, *, hash_id: str | None = None, id: int | None = None) -> Template:  # noqa: A002
        """The template; Refused (`code` no_such_template) if there is none."""
        ...

    async def logs(self, instance_id: int, *, tail: int = 200) -> str:
        """The last lines that the instance printed."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
