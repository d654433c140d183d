"""Offers and templates of the deployment's marketplace, through the engine."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from stoker.errors import MalformedAnswer
from stoker.management.console_api import ConsoleApi, read_rows
from stoker.management.records import OfferRecord, TemplateRecord
from stoker_wire.base import TolerantModel

OFFERS = "/api/v0/offers/"
TEMPLATES = "/api/v0/template/"

TemplateRows = list[TemplateRecord]


class FoundOffers(TolerantModel):
    """The answer to a search."""

    offers: list[OfferRecord] = Field(default_factory=list)
    """Cheapest first."""
    disk_gb: float = 0.0
    """The disk that the prices include."""
    market: str = "vast"
    """`host`: this deployment's own machine; `vast`: a marketplace elsewhere."""
    engine_url: str = ""
    """The address to which workers report."""
    reason: str = ""
    """Why no offer matches; "" if some do."""


class Marketplace(ConsoleApi):
    """`client.marketplace`."""

    async def offers(self, search: Any = "", **group: Any) -> FoundOffers:
        """The offers that a workergroup with this search would rent, with their prices.

        Args:
            search: as `search_params` of a workergroup.
            group: further fields of the workergroup: `launch_args`, `template_hash`, `template_id`.
        """
        given = {name: value for name, value in group.items() if value is not None}
        answer = await self._call("POST", OFFERS, {"search_params": search, **given})
        rows = read_rows(OfferRecord, answer, "offers", OFFERS)
        known = {
            name: answer[name] for name in FoundOffers.model_fields if name in answer and name != "offers"
        }
        return FoundOffers.model_validate({**known, "offers": [row for row in rows if not row.broken]})

    async def templates(self, *, name: str | None = None) -> TemplateRows:
        """All templates, or those with this name."""
        filters = {"name": {"eq": name}} if name is not None else {}
        answer = await self._call("GET", TEMPLATES, select_filters=json.dumps(filters))
        rows = read_rows(TemplateRecord, answer, "templates", TEMPLATES)
        return [row for row in rows if name is None or row.name == name]

    async def create_template(self, **template: Any) -> TemplateRecord:
        """Create a template: `name`, `image`, `env`, `onstart`, `recommended_disk_space`, …"""
        answer = await self._call("POST", TEMPLATES, template)
        row = answer.get("template") if isinstance(answer, dict) else None
        (made,) = read_rows(TemplateRecord, {"templates": [row]}, "templates", TEMPLATES)
        if not made.hash_id:
            raise MalformedAnswer(f"{TEMPLATES} created a template but did not return its hash")
        return made

    async def delete_template(self, hash_id: str) -> None:
        """Delete a template that no workergroup uses."""
        await self._call("DELETE", TEMPLATES, {"hash_id": hash_id}, what=hash_id)

    async def instance(self, instance_id: int) -> dict[str, Any]:
        """The marketplace's row of one of this account's instances; empty if it is not listed."""
        answer = await self._call("GET", f"/api/v0/instances/{instance_id}/")
        row = answer.get("instances") if isinstance(answer, dict) else None
        return row if isinstance(row, dict) else {}
