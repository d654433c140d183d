"""The marketplace: its key, the account's credit, its clock, and the deployment's instances."""

import email.utils
import time
from collections.abc import AsyncIterator

import httpx

from market.interface import MarketError, OfferQuery, Unauthorised
from market.ownership import Account, DeploymentMarket
from market.vast.client import VastMarket
from run.doctor.engine_checks import http_client
from run.errors import CommandError
from run.settings import DeploymentSettings
from run.state_folder.identity import read_identity
from run.state_folder.keys import load_keys
from stoker.cli.overview.doctor import clock_finding
from stoker.cli.overview.findings import Finding

CREDIT_HOURS_MIN = 24.0
"""The marketplace destroys instances of an account without credit."""


async def check_market(settings: DeploymentSettings) -> AsyncIterator[Finding]:
    """The findings of calls with the deployment's key."""
    url, where = settings.market_url, "market.url" if settings.uses_vast else "host_market.port"
    remedy = f"correct {where}" + (
        "" if settings.uses_vast else ", or start it: `stokerd dev`, or `stokerd market`"
    )
    key_remedy = (
        "set VAST_API_KEY (or STOKER_MARKET_KEY) to a key of the account, and restart worker and engine"
        if settings.uses_vast
        else "run `stokerd dev` once to generate it, or set STOKER_MARKET_KEY to the same value everywhere"
    )
    try:
        keys = load_keys(settings.state_dir, generate=False, role="market", uses_vast=settings.uses_vast)
        market = settings.market_client(keys.market_key)
    except CommandError as fault:
        yield Finding("marketplace", "failed", str(fault), key_remedy)
        return
    try:
        offers = await market.search(OfferQuery(filters={}, limit=1))
        yield Finding(
            "marketplace", "ok", f"{url} accepts the key" + ("" if offers else ", but offers no machine now")
        )
        yield await _clock(url)
        async for finding in _account(market, settings):
            yield finding
    except Unauthorised as fault:
        yield Finding("marketplace", "failed", str(fault), key_remedy)
    except MarketError as fault:
        yield Finding("marketplace", "failed", f"{url}: {fault}", remedy)
    finally:
        await market.close()


async def _clock(url: str) -> Finding:
    """By the Date field of any answer, which has whole seconds."""
    async with http_client(url) as http:
        before = time.time()
        try:
            date = (await http.head(url)).headers.get("Date", "")
            at = email.utils.parsedate_to_datetime(date).timestamp()
        except (httpx.HTTPError, ValueError):
            at = None
        return clock_finding("clock of the marketplace", "its clock", at, before - 1.0, time.time())


async def _account(market: VastMarket, settings: DeploymentSettings) -> AsyncIterator[Finding]:
    stored = read_identity(settings.state_dir)
    dollars_per_hour = 0.0
    if stored is not None:
        account = await DeploymentMarket(market, stored.deployment).account()
        dollars_per_hour = sum(one.dph_total for one in account.own if one.actual_status == "running")
        yield _instances(account, dollars_per_hour)
    if settings.uses_vast:
        yield credit_finding(await market.credit(), dollars_per_hour)


def _instances(account: Account, dollars_per_hour: float) -> Finding:
    text = f"{len(account.own)} of this deployment, running for ${dollars_per_hour:.3f}/h"
    if account.unowned:
        fault = f"{text}; {len(account.unowned)} whose label names no deployment"
        return Finding("instances", "warning", fault, "assign them with `stokerd adopt`, or destroy them")
    return Finding("instances", "ok", text)


def credit_finding(credit: float, dollars_per_hour: float) -> Finding:
    """Whether the credit lasts for a day at the present price."""
    hours = credit / dollars_per_hour if dollars_per_hour > 0 else None
    text = f"${credit:.2f} are left" + (
        "" if hours is None else f", {hours:.0f} h at ${dollars_per_hour:.3f}/h"
    )
    remedy = "add credit to the marketplace's account; instances of an account without credit are destroyed"
    if credit <= 0:
        return Finding("credit", "failed", text, remedy)
    short = hours is not None and hours < CREDIT_HOURS_MIN
    return Finding("credit", "warning", text, remedy) if short else Finding("credit", "ok", text)
