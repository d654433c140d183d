"""Bodies about the account and the marketplace, where no wire type describes them."""

from typing import Any, Literal

from pydantic import BaseModel

from engine.openapi.common import KEY, Keyed, optional
from stoker_wire.http.openapi import Said
from stoker_wire.market import Instance, Offer, Template


class User(Said):
    """The account in the official format."""

    id: int
    username: str
    email: str
    host_agreement_accepted: bool
    balance: float
    credit: float


class Offers(BaseModel):
    """Offers of the marketplace."""

    offers: list[Offer]


class OfferSearch(Keyed):
    """The search of a workergroup."""

    search_params: Any = None
    launch_args: str | None = None
    template_hash: str | None = None
    template_id: int | None = None


class PricedOffer(Offer):
    """An offer with its prices for the workergroup."""

    hot_dollars_per_hour: float
    cold_dollars_per_hour: float


class PricedOffers(Said):
    """Offers, cheapest first; `reason` explains an empty list."""

    success: Literal[True]
    offers: list[PricedOffer]
    disk_gb: float
    market: Literal["host", "vast"]
    engine_url: str
    reason: str


NewTemplate = optional("NewTemplate", Template, without=["id", "hash_id"], **KEY)


class TemplateMade(Said):
    """The new template, or an equal older one."""

    success: Literal[True]
    template: Template


class TemplateNamed(Keyed):
    """A template by hash or id."""

    hash_id: str | None = None
    template_id: int | None = None


class Templates(BaseModel):
    """Templates of the marketplace."""

    templates: list[Template]


class Benchmarks(BaseModel):
    """Benchmarks of the marketplace."""

    benchmarks: list[Any]


class OneInstance(Said):
    """One instance, or null."""

    instances: Instance | None


class Instances(Said):
    """All instances of the account, on one page."""

    success: Literal[True]
    instances: list[Instance]
    next_token: None
    total_instances: int
    label_counts: dict[str, int]
