"""Instances are real processes; the client sees them as rented machines."""

import pytest

from market.port import InstanceGone, Launch, OfferGone, OfferQuery


async def test_a_rented_offer_runs_its_template_and_is_offered_no_more(bench):
    before = await bench.market.search(OfferQuery(filters={}))
    instance_id = await bench.rent(label="stoker:chat:abc")
    instance = await bench.reaches(instance_id, "running")
    after = await bench.market.search(OfferQuery(filters={}))
    assert instance.label == "stoker:chat:abc"
    assert len(after) == len(before) - 1


async def test_a_stopped_instance_keeps_its_disk_and_starts_again_on_it(bench):
    instance_id = await bench.rent(onstart="echo boot >> kept; wc -l < kept; exec sleep 1000")
    await bench.printed(instance_id, "1")
    await bench.market.stop(instance_id)
    stopped = await bench.reaches(instance_id, "stopped")
    assert stopped.intended_status == "stopped"
    await bench.market.start(instance_id)
    await bench.printed(instance_id, "2")


async def test_a_destroyed_instance_leaves_nothing_and_its_slot_is_free_again(bench, tmp_path):
    offer = await bench.offer()
    instance_id = await bench.market.create(offer, Launch(label="x", template_hash="server", disk_gb=1))
    await bench.reaches(instance_id, "running")
    await bench.market.destroy(instance_id)
    with pytest.raises(InstanceGone):
        await bench.market.show(instance_id)
    assert not (tmp_path / "market" / "instances" / str(instance_id)).exists()
    assert offer in [one.id for one in await bench.market.search(OfferQuery(filters={}))]
    await bench.market.destroy(instance_id)


async def test_a_taken_offer_is_gone(bench):
    offer = await bench.offer()
    await bench.market.create(offer, Launch(label="x", template_hash="server", disk_gb=1))
    with pytest.raises(OfferGone):
        await bench.market.create(offer, Launch(label="y", template_hash="server", disk_gb=1))
