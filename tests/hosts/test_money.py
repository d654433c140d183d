"""Charges of instances: billed by the second, depending on the state."""

import pytest

from hosts.catalog.record import HOURS_PER_MONTH, InstanceRecord


def record_at(now: float) -> InstanceRecord:
    record = InstanceRecord(
        id=1,
        offer_id=1,
        machine="CPU",
        slot=0,
        created_at=now,
        dollars_per_hour=3.6,
        storage_dollars_per_hour=0.36,
        api_key="k",
    )
    record.meter.storage_since = now
    return record


def test_the_machine_is_billed_while_loading_and_running_and_the_disk_always():
    record = record_at(0)
    record.set_actual("loading", 10)
    record.set_actual("running", 40)
    record.set_actual("stopped", 100)
    record.set_actual("loading", 200)
    record.set_actual("exited", 210)
    # 90 s and 10 s of machine at $0.001/s; 300 s of disk at $0.0001/s.
    charge = record.charge(300)
    assert charge["gpu_seconds"] == 100
    assert charge["gpu_dollars"] == pytest.approx(0.1)
    assert charge["storage_dollars"] == pytest.approx(0.03)
    assert charge["dollars"] == pytest.approx(0.13)


@pytest.mark.parametrize("status", [None, "stopped", "exited", "offline"])
def test_other_states_bill_the_disk_only(status):
    record = record_at(0)
    record.set_actual(status, 0)
    assert record.charge(3600)["dollars"] == pytest.approx(0.36)


def test_reading_a_charge_changes_nothing_and_charges_only_grow():
    record = record_at(0)
    record.set_actual("running", 0)
    assert [record.charge(now)["gpu_seconds"] for now in (10, 10, 20)] == [10, 10, 20]


def test_a_clock_that_goes_back_reduces_no_charge():
    record = record_at(100)
    record.set_actual("running", 100)
    record.set_actual("stopped", 50)
    assert record.charge(60)["dollars"] == 0


def test_a_new_price_holds_from_now_on():
    record = record_at(0)
    record.set_actual("running", 0)
    record.meter.settle(100, record.dollars_per_hour)
    record.dollars_per_hour = 36
    assert record.charge(200)["gpu_dollars"] == pytest.approx(0.1 + 1.0)


async def test_charges_add_up_and_outlive_their_instances(tmp_path, tools):
    settings = tools.settings_for(tmp_path / "m")
    async with tools.running(settings) as bench:
        gone = await bench.rent(kind="CPU large", label="gone", disk_gb=10)
        stays = await bench.rent(label="stays")
        await bench.reaches(gone, "running")
        instance = await bench.reaches(stays, "running")
        assert instance.dph_base == 0.10
        assert instance.storage_total_cost == pytest.approx(0.1 * 1.0 / HOURS_PER_MONTH)
        await bench.market.destroy(gone)
        body = (await bench.http.get("/host/charges/")).json()
        rows = {row["id"]: row for row in body["instances"]}
        assert rows[gone]["destroyed"] is True
        assert rows[stays]["destroyed"] is False
        assert rows[gone]["dollars"] > 0
        assert body["total_dollars"] == pytest.approx(sum(row["dollars"] for row in body["instances"]))
    async with tools.running(settings) as bench:
        after = {row["id"]: row for row in (await bench.http.get("/host/charges/")).json()["instances"]}
        assert after[gone] == rows[gone]
        assert after[stays]["dollars"] >= rows[stays]["dollars"]
