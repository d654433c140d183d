"""`POST /api/v0/offers/`: the offers that a workergroup would rent, with their prices while running and while stopped."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from activities.launch import disk_gb_of, priced, search_query, storage_dollars_per_hour
from engine.api.parsing import answer, read_object
from engine.console.market import MarketApi
from engine.console.workergroup_checks import check_search
from engine.engine import Engine
from engine.openapi import market_shapes
from engine.openapi.declarations import ACCOUNT, BODY, MARKET, ok
from market.interface import OfferQuery, Refused
from stoker_wire.errors.problem import Problem, describe
from stoker_wire.http.openapi import handles
from stoker_wire.market import Offer, Template
from stoker_wire.parsing.numbers import finite
from stoker_wire.workergroup import Workergroup

_ROWS_MAX = 256
_FILTERS_TRIED_MAX = 8
"""Searches that explain an empty result, each without one filter."""
_WARNING_SECONDS_MAX = 10.0
"""A create is not held up longer by a slow marketplace."""
_GROUP_FIELDS = ("search_params", "launch_args", "template_hash", "template_id")


class OffersApi:
    """Searches with the filters of a workergroup and its template, exactly as the planner does."""

    def __init__(self, engine: Engine, market: MarketApi) -> None:
        self._engine = engine
        self._market = market

    @handles(
        "POST /api/v0/offers/",
        tag="marketplace",
        security=ACCOUNT,
        body=market_shapes.OfferSearch,
        replies=ok(market_shapes.PricedOffers, "Offers with prices, cheapest first"),
        refuses=(*BODY, *MARKET),
    )
    async def offers(self, request: web.Request) -> web.Response:
        """The offers that match, cheapest first. Without a template only `search_params` count."""
        body = await read_object(request)
        self._engine.accounts.authenticate(request, body)
        group = _group(body)
        check_search(group)
        template = await self._template(body)
        query, rows = await self._search(group, template)
        rows.sort(key=lambda row: row["hot_dollars_per_hour"])
        reason = "" if rows else await self._why_none(query)
        return answer(
            {
                "success": True,
                "offers": rows,
                "disk_gb": query.disk_gb,
                "market": "host" if self._market.is_local else "vast",
                "engine_url": self._engine.settings.public_url,
                "reason": reason,
            }
        )

    async def warning_of(self, group: Workergroup) -> str:
        """Why no offer matches the workergroup now, or its search is invalid; "" if some do, or no market answers."""
        try:
            async with asyncio.timeout(_WARNING_SECONDS_MAX):
                template = await self._template(group.model_dump())
                query, rows = await self._search(group, template)
                return "" if rows else await self._why_none(query)
        except Problem as fault:
            return fault.message if fault.status == 400 else ""
        except TimeoutError:
            return ""

    async def _template(self, given: Mapping[str, Any]) -> Template:
        hash_id, number = given.get("template_hash"), given.get("template_id")
        if hash_id is None and number is None:
            return Template(id=0)
        row = await self._market.template(hash_id, number)
        if row is None:
            named = f"hash {hash_id!r:.80}" if hash_id is not None else f"id {number!r:.20}"
            raise Problem(400, "no_such_template", f"the marketplace has no template with {named}")
        return Template.model_validate(row)

    async def _search(
        self, group: Workergroup, template: Template
    ) -> tuple[OfferQuery, list[dict[str, Any]]]:
        try:
            query = search_query(group, template)
        except Refused as fault:
            raise Problem(400, "invalid_search_params", str(fault)) from None
        disk_gb = disk_gb_of(group, template)
        rows = []
        for row in await self._market.find_offers(query, _ROWS_MAX):
            try:
                found = priced([Offer.model_validate(row)], group)
            except ValidationError:  # one invalid offer must not hide the others
                continue
            rows += [
                {
                    **row,
                    "hot_dollars_per_hour": offer.dph_total,
                    "cold_dollars_per_hour": storage_dollars_per_hour(offer, disk_gb),
                }
                for offer in found
            ]
        return query, rows

    async def _why_none(self, query: OfferQuery) -> str:
        """Which single filter excludes every offer, and the nearest value that the marketplace has."""
        names = [name for name in query.filters if name != "rentable"][:_FILTERS_TRIED_MAX]
        try:
            with_any_disk, *found = await asyncio.gather(
                self._market.find_offers(replace(query, disk_gb=1.0), _ROWS_MAX),
                *(self._without(query, name) for name in names),
            )
        except Problem:
            return "no offer matches now"
        hints = [
            f"without {_filter_text(name, query.filters[name])} {len(rows)} would match{_nearest(name, rows)}"
            for name, rows in zip(names, found, strict=True)
            if rows
        ]
        if with_any_disk:
            disk = _nearest("disk_space", with_any_disk)
            hints.append(f"without a disk of {query.disk_gb:g} GB {len(with_any_disk)} would match{disk}")
        if hints:
            return f"no offer matches now; {'; '.join(hints)}"
        return "no offer matches now, nor if any single filter is dropped; loosen several, or wait"

    async def _without(self, query: OfferQuery, name: str) -> list[dict[str, Any]]:
        rest = {field: each for field, each in query.filters.items() if field != name}
        return await self._market.find_offers(replace(query, filters=rest), _ROWS_MAX)


def _group(body: Mapping[str, Any]) -> Workergroup:
    given = {name: body[name] for name in _GROUP_FIELDS if body.get(name) is not None}
    if "template_hash" not in given:
        given.setdefault(
            "template_id", 1
        )  # a workergroup needs one; the search without a template ignores it
    try:
        return Workergroup.model_validate({"id": 1, **given})
    except ValidationError as fault:
        raise Problem(400, "invalid_args", describe(fault)) from None


_SYMBOLS = {
    "eq": "=",
    "neq": "!=",
    "gt": ">",
    "gte": ">=",
    "lt": "<",
    "lte": "<=",
    "in": " in ",
    "notin": " not in ",
}


def _filter_text(name: str, conditions: Any) -> str:
    """`gpu_ram>=80000`."""
    if not isinstance(conditions, Mapping):
        return name
    return " ".join(f"{name}{_SYMBOLS.get(op, op)}{_value_text(value)}" for op, value in conditions.items())


def _value_text(value: Any) -> str:
    number = None if isinstance(value, bool) else finite(value)
    return str(value)[:80] if number is None else f"{number:g}"


def _nearest(name: str, rows: list[dict[str, Any]]) -> str:
    """The values of the field among these offers: the largest number, or up to four names."""
    values = [row[name] for row in rows if row.get(name) is not None]
    numbers = [number for value in values if (number := finite(value)) is not None]
    if values and len(numbers) == len(values):
        low, high = min(numbers), max(numbers)
        return f" ({name} {low:g})" if low == high else f" ({name} {low:g} to {high:g})"
    names = sorted({str(value)[:40] for value in values})[:4]
    return f" ({name}: {', '.join(names)})" if names else ""
