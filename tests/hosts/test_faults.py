"""Injected faults of the marketplace, as the client sees them."""

import pytest

from market.interface import Launch, OfferGone, RateLimited, Unavailable


async def test_an_offer_can_be_gone(bench):
    await bench.arm(fault="offer_gone")
    with pytest.raises(OfferGone):
        await bench.rent()
    await bench.rent()


async def test_a_fault_applies_as_often_as_armed_to_matching_calls(bench):
    await bench.arm(fault="offer_gone", times=2, machine="CPU_small")
    await bench.rent(kind="CPU large")
    for _ in range(2):
        with pytest.raises(OfferGone):
            await bench.rent()
    await bench.rent()
    assert (await bench.http.get("/host/faults/")).json() == {"faults": []}


@pytest.mark.parametrize("seconds", [None, 7.0])
async def test_a_rate_limit_has_retry_after_if_it_is_set(bench, seconds):
    await bench.arm(fault="rate_limited", path="/bundles/", retry_after_s=seconds)
    with pytest.raises(RateLimited) as limited:
        await bench.offers()
    assert limited.value.retry_after_s == seconds
    assert await bench.offers()


async def test_a_server_error_is_unavailable_and_changes_nothing(bench):
    offer = await bench.offer()
    await bench.arm(fault="server_error", method="PUT")
    with pytest.raises(Unavailable, match="500"):
        await bench.market.create(offer, Launch(label="x", template_hash="sleeper", disk_gb=1))
    assert await bench.market.list() == []


async def test_a_lost_answer_leaves_an_instance_that_the_label_finds(bench):
    await bench.arm(fault="lost_answer")
    with pytest.raises(Unavailable, match="no answer"):
        await bench.rent(label="stoker:chat:lost")
    found = await bench.market.list(label_prefix="stoker:chat:lost")
    assert len(found) == 1
    await bench.reaches(found[0].id, "running")


async def test_a_lost_answer_can_be_armed_by_path(bench):
    instance_id = await bench.rent()
    await bench.arm(fault="lost_answer", path=f"/instances/{instance_id}/", method="PUT")
    with pytest.raises(Unavailable, match="no answer"):
        await bench.market.stop(instance_id)
    await bench.reaches(instance_id, "stopped")


async def test_an_empty_list_hides_instances_that_still_answer_by_their_id_and_can_be_relabelled(bench):
    instance_id = await bench.rent(label="stoker:chat:here")
    await bench.arm(fault="list_empty")
    assert await bench.market.list() == []
    assert (await bench.market.show(instance_id)).label == "stoker:chat:here"
    await bench.market.relabel(instance_id, "do not touch")
    assert [one.label for one in await bench.market.list()] == ["do not touch"], "once only"


async def test_a_load_failure_is_a_program_that_ends_at_once(bench):
    await bench.arm(fault="load_failure")
    instance_id = await bench.rent()
    await bench.reaches(instance_id, "exited")
    await bench.market.start(instance_id)
    await bench.reaches(instance_id, "running")


async def test_outbid_stops_a_running_instance_which_may_be_started_again(bench):
    instance_id = await bench.rent(label="stoker:a:1")
    other = await bench.rent(label="stoker:b:1")
    await bench.reaches(instance_id, "running")
    await bench.reaches(other, "running")
    await bench.arm(fault="outbid", label="stoker:a:")
    stopped = await bench.reaches(instance_id, "stopped")
    assert (stopped.intended_status, stopped.status_msg) == ("stopped", "outbid")
    assert (await bench.market.show(other)).actual_status == "running"
    await bench.market.start(instance_id)
    await bench.reaches(instance_id, "running")


async def test_outbid_applies_to_the_next_instance_if_no_one_runs(bench):
    await bench.arm(fault="outbid")
    await bench.reaches(await bench.rent(), "stopped")


async def test_a_dead_host_takes_its_processes_along_and_ignores_commands_until_it_is_back(bench, tools):
    instance_id = await bench.rent()
    await bench.reaches(instance_id, "running")
    pid = bench.host.instances[instance_id].process.pid
    await bench.arm(fault="host_dies", instance_id=instance_id)
    offline = await bench.reaches(instance_id, "offline")
    assert offline.intended_status == "running"
    assert not tools.alive(pid)
    await bench.market.start(instance_id)
    assert (await bench.market.show(instance_id)).actual_status == "offline"
    await bench.http.delete("/host/faults/")
    await bench.reaches(instance_id, "running")


async def test_a_host_may_come_back_by_itself(bench):
    await bench.arm(fault="host_dies", seconds=0.05)
    instance_id = await bench.rent()
    await bench.reaches(instance_id, "offline")
    await bench.reaches(instance_id, "running")


async def test_a_dead_host_can_be_destroyed(bench):
    instance_id = await bench.rent()
    await bench.reaches(instance_id, "running")
    await bench.arm(fault="host_dies")
    await bench.reaches(instance_id, "offline")
    await bench.market.destroy(instance_id)
    assert await bench.gone(instance_id)


async def test_a_start_can_be_stuck_until_its_machine_is_free(bench):
    instance_id = await bench.rent()
    await bench.market.stop(instance_id)
    await bench.reaches(instance_id, "stopped")
    await bench.arm(fault="stuck_scheduling")
    await bench.market.start(instance_id)

    stuck = await bench.market.show(instance_id)
    assert (stuck.actual_status, stuck.intended_status) == ("stopped", "running")
    assert bench.host.instances[instance_id].process is None
    await bench.http.delete("/host/faults/")
    await bench.reaches(instance_id, "running")


async def test_a_slow_pull_is_seen_as_loading_and_can_be_broken_off(tmp_path, tools):
    from hosts import MachineSettings

    machines = (
        MachineSettings(name="slow", count=2, dollars_per_hour=0.1, pull_mb=2, pull_mb_per_second=1000),
    )
    async with tools.running(tools.settings_for(tmp_path / "m", machines=machines)) as bench:
        await bench.arm(fault="slow_pull", factor=10_000)
        slow = await bench.rent(kind="slow")
        quick = await bench.rent(kind="slow")
        await bench.reaches(quick, "running")
        image = bench.host.resources.home(quick) / "image"
        assert image.stat().st_size == 2_000_000
        loading = await bench.reaches(slow, "loading")
        assert "pulling image" in loading.status_msg
        await bench.market.stop(slow)
        await bench.reaches(slow, "stopped")
        await bench.market.start(slow)
        await bench.reaches(slow, "running")
        assert (bench.host.resources.home(slow) / "image").stat().st_size == 2_000_000


async def test_an_unknown_fault_is_refused_with_the_known_ones(bench):
    response = await bench.http.post("/host/faults/", json={"fault": "meteor"})
    assert response.status_code == 400
    assert "offer_gone" in response.json()["msg"]
