"""Contract tests of the market port: the in-memory market and the host marketplace over HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from hosts import HostMarketSettings, MachineSettings, TemplateSettings, create_app
from market.fake import FakeMarket
from market.interface import InstanceGone, Launch, Market, OfferGone, OfferQuery, Refused
from market.vast.client import VastMarket
from stoker_wire.market import Instance, Offer, Template

KEY = "a-key-of-the-contract-tests"
LABEL = "stoker:contract:000000000001"


@asynccontextmanager
async def in_memory(_: Path) -> AsyncIterator[Market]:
    kinds = [("CPU small", 0.1, 10.0), ("CPU small", 0.1, 10.0), ("CPU large", 0.3, 40.0)]
    offers = [
        Offer(id=number + 1, machine_id=number + 1, gpu_name=name, dph_total=price, dlperf=dlperf)
        for number, (name, price, dlperf) in enumerate(kinds)
    ]
    template = Template(id=1, hash_id="sleeper", name="sleeper")
    yield FakeMarket(offers, clock=time.time, templates=[template], pull_seconds=0.1, start_seconds=0.1)


@asynccontextmanager
async def on_this_host(folder: Path) -> AsyncIterator[Market]:
    terms = HostMarketSettings(
        state_dir=folder,
        api_keys=(KEY,),
        machines=(
            MachineSettings(name="CPU small", count=2, dollars_per_hour=0.1, dlperf=10),
            MachineSettings(name="CPU large", count=1, dollars_per_hour=0.3, dlperf=40),
        ),
        templates=(TemplateSettings(name="sleeper", onstart="exec sleep 1000", hash_id="sleeper"),),
    )
    runner = web.AppRunner(create_app(terms, gpus=list), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        market = VastMarket(f"http://127.0.0.1:{runner.addresses[0][1]}", KEY)
        try:
            yield market
            for instance in await market.list():
                await market.destroy(instance.id)
        finally:
            await market.close()
    finally:
        await runner.cleanup()


@pytest.fixture(params=[in_memory, on_this_host], ids=lambda made: made.__name__)
async def market(request: Any, tmp_path: Path) -> AsyncIterator[Market]:
    async with request.param(tmp_path) as made:
        yield made


async def cheapest(market: Market) -> Offer:
    return (await market.search(OfferQuery(filters={"gpu_name": {"eq": "CPU small"}}, disk_gb=1)))[0]


async def rent(market: Market, label: str = LABEL) -> int:
    offer = await cheapest(market)
    return await market.create(offer.id, Launch(label=label, template_hash="sleeper", disk_gb=1))


async def until(market: Market, instance_id: int, true: Callable[[Instance], bool]) -> None:
    async with asyncio.timeout(30):
        while not true(await market.show(instance_id)):
            await asyncio.sleep(0.02)


async def test_a_search_filters_and_sorts_by_price_performance(market: Market) -> None:
    small = await market.search(OfferQuery(filters={"gpu_name": {"eq": "CPU small"}}))
    assert {offer.gpu_name for offer in small} == {"CPU small"}
    assert len(await market.search(OfferQuery(filters={}, limit=2))) == 2
    best = (await market.search(OfferQuery(filters={})))[0]
    assert best.gpu_name == "CPU large"
    assert await market.search(OfferQuery(filters={"dph_total": {"lt": "0.01"}})) == []


async def test_a_rented_offer_is_gone_until_it_is_released(market: Market) -> None:
    offer = await cheapest(market)
    launch = Launch(label=LABEL, template_hash="sleeper", disk_gb=1)
    instance_id = await market.create(offer.id, launch)
    assert offer.id not in {other.id for other in await market.search(OfferQuery(filters={}))}
    with pytest.raises(OfferGone):
        await market.create(offer.id, launch)
    with pytest.raises(OfferGone):
        await market.create(999_999_999, launch)
    await market.destroy(instance_id)
    async with asyncio.timeout(30):
        while len(await market.search(OfferQuery(filters={}))) < 3:
            await asyncio.sleep(0.02)


async def test_an_instance_runs_stops_starts_and_reboots(market: Market) -> None:
    instance_id = await rent(market)
    await until(market, instance_id, lambda seen: seen.actual_status == "running")
    await market.stop(instance_id)
    await until(market, instance_id, lambda seen: seen.actual_status in {"stopped", "exited"})
    await market.start(instance_id)
    await until(market, instance_id, lambda seen: seen.actual_status == "running")
    await market.reboot(instance_id)
    await until(market, instance_id, lambda seen: seen.actual_status == "running")


async def test_instances_are_found_by_label_prefix(market: Market) -> None:
    mine, other = await rent(market), await rent(market, "stoker:other:000000000002")
    assert {instance.id for instance in await market.list()} == {mine, other}
    [found] = await market.list(label_prefix="stoker:contract:")
    assert (found.id, found.label) == (mine, LABEL)
    assert found.dph_total > 0


async def test_instances_are_found_by_their_exact_labels(market: Market) -> None:
    mine, longer = await rent(market), await rent(market, f"{LABEL}-longer")
    assert [instance.id for instance in await market.labelled([LABEL])] == [mine]
    asked = [LABEL, f"{LABEL}-longer", LABEL[:-1]]
    assert {instance.id for instance in await market.labelled(asked)} == {mine, longer}
    assert await market.labelled([LABEL[:-1]]) == []
    assert await market.labelled([]) == []


async def test_a_destroyed_instance_is_gone_and_a_second_destroy_succeeds(market: Market) -> None:
    instance_id = await rent(market)
    await market.destroy(instance_id)
    await market.destroy(instance_id)
    assert await market.list() == []
    with pytest.raises(InstanceGone):
        await market.show(instance_id)
    for call in (market.start, market.stop, market.reboot):
        with pytest.raises(InstanceGone):
            await call(instance_id)


async def test_an_unknown_template_is_refused_and_rents_nothing(market: Market) -> None:
    assert (await market.template(hash_id="sleeper")).name == "sleeper"
    with pytest.raises(Refused) as refused:
        await market.template(hash_id="nope")
    assert refused.value.code == "no_such_template"
    offer = await cheapest(market)
    with pytest.raises(Refused):
        await market.create(offer.id, Launch(label=LABEL, template_hash="nope", disk_gb=1))
    assert await market.list() == []
