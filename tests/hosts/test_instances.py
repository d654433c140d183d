"""Instances are real processes; the client sees them as rented machines."""

import asyncio
import random

import httpx
import pytest

from hosts.agent import proc
from market.interface import InstanceGone, Launch, OfferGone, Refused


async def test_a_rented_offer_runs_its_template_and_is_offered_no_more(bench, tools):
    before = await bench.offers()
    instance_id = await bench.rent(label="stoker:chat:abc", template_hash="server")
    instance = await bench.reaches(instance_id, "running")
    assert instance.label == "stoker:chat:abc"
    assert instance.gpu_name == "CPU small"
    assert len(await bench.offers()) == len(before) - 1
    port = instance.ports["3000/tcp"][0]["HostPort"]

    async def answers():
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                return (await client.get(f"http://127.0.0.1:{port}/")).status_code == 200
        except httpx.TransportError:
            return False

    await tools.until(answers, what="the template's server on the instance's published port")


async def test_a_stopped_instance_keeps_its_disk_and_starts_again_on_it(bench):
    instance_id = await bench.rent(onstart="echo boot >> kept; echo boots $(wc -l < kept); exec sleep 1000")
    await bench.printed(instance_id, "boots 1")
    await bench.market.stop(instance_id)
    stopped = await bench.reaches(instance_id, "stopped")
    assert (stopped.intended_status, stopped.cur_state) == ("stopped", "stopped")
    await bench.market.start(instance_id)
    await bench.printed(instance_id, "boots 2")


async def test_a_stopped_instance_keeps_its_slot(bench):
    instance_id = await bench.rent(kind="CPU large")
    await bench.market.stop(instance_id)
    await bench.reaches(instance_id, "stopped")
    assert await bench.offers(filters={"gpu_name": {"eq": "CPU large"}}) == []


async def test_a_destroyed_instance_leaves_nothing_and_its_slot_is_free_again(bench, tools):
    instance_id = await bench.rent(kind="CPU large")
    await bench.reaches(instance_id, "running")
    supervisor = bench.host.instances[instance_id]
    pid, home = supervisor.process.pid, bench.host.resources.home(instance_id)
    assert home.exists()
    await bench.market.destroy(instance_id)
    assert await bench.gone(instance_id)
    assert not tools.alive(pid)
    assert not home.exists()
    assert len(await bench.offers(filters={"gpu_name": {"eq": "CPU large"}})) == 1


async def test_destroying_a_destroyed_instance_succeeds(bench):
    instance_id = await bench.rent()
    await bench.market.destroy(instance_id)
    await bench.market.destroy(instance_id)


async def test_a_taken_offer_is_gone(bench):
    offer = await bench.offer()
    await bench.market.create(offer, Launch(label="x", template_hash="sleeper", disk_gb=1))
    with pytest.raises(OfferGone, match="no_such_ask"):
        await bench.market.create(offer, Launch(label="y", template_hash="sleeper", disk_gb=1))


@pytest.mark.parametrize("verb", ["start", "stop", "reboot", "show", "logs"])
async def test_a_call_on_an_unknown_instance_raises_instance_gone(bench, verb):
    with pytest.raises(InstanceGone):
        await getattr(bench.market, verb)(424242)


@pytest.mark.parametrize(
    ("launch", "code"),
    [
        ({"template_hash": "nobody"}, "no_such_template"),
        ({"template_id": 9999}, "no_such_template"),
        ({"template_hash": "sleeper", "disk_gb": 1e6}, "invalid_args"),
        ({"image": "some/image"}, "invalid_args"),
        ({"template_hash": "sleeper", "bid_dollars_per_hour": 0.01}, "invalid_price"),
    ],
)
async def test_a_launch_that_cannot_work_is_refused_and_rents_nothing(bench, launch, code):
    offer = await bench.offer()
    with pytest.raises(Refused) as refused:
        await bench.market.create(offer, Launch(label="x", **launch))
    assert refused.value.code == code
    assert await bench.market.list() == []


async def test_an_instance_whose_program_ends_is_exited_until_it_is_started_again(bench):
    instance_id = await bench.rent(onstart="echo was here; exit 3")
    exited = await bench.reaches(instance_id, "exited")
    assert (exited.intended_status, exited.status_msg) == ("running", "exited with code 3: was here")
    await bench.market.update_template(instance_id, Launch(label="", onstart="exec sleep 1000"))
    await bench.market.start(instance_id)
    await bench.reaches(instance_id, "running")


async def test_when_the_first_process_ends_its_helpers_end_with_it(bench, tools):
    # The helper has left the process group and its session, as daemons do, before the first process ends.
    instance_id = await bench.rent(
        onstart='setsid sleep 1000 & until [ "$(cut -d" " -f6 /proc/$!/stat)" = $! ]; do :; done; echo helper $!'
    )
    log = await bench.printed(instance_id, "helper")
    helper = int(log.split("helper")[1].split()[0])
    await bench.reaches(instance_id, "exited")
    assert not tools.alive(helper)


async def test_a_worker_that_drains_keeps_its_model_server_until_it_has_ended(bench):
    model = "python -c 'import signal; signal.pause()'"  # ends at once by SIGTERM
    drain = 'sleep 0.5; kill -0 $model && echo "drained with its model"; exit 0'
    instance_id = await bench.rent(
        onstart=f"{model} & model=$!; trap '{drain}' TERM; echo up; wait $model; sleep 9"
    )
    await bench.printed(instance_id, "up")
    await bench.market.stop(instance_id)
    await bench.reaches(instance_id, "stopped")
    assert "drained with its model" in await bench.market.logs(instance_id)


async def test_stop_lets_a_program_finish_within_its_grace(bench):
    instance_id = await bench.rent(
        onstart="trap 'echo said goodbye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    )
    await bench.printed(instance_id, "up")
    await bench.market.stop(instance_id)
    await bench.reaches(instance_id, "stopped")
    assert "said goodbye" in await bench.market.logs(instance_id)


async def test_stop_kills_a_program_that_ignores_it(tmp_path, tools):
    async with tools.running(tools.settings_for(tmp_path / "m", stop_grace_seconds=0.2)) as bench:
        instance_id = await bench.rent(onstart="trap '' TERM; echo up; while :; do sleep 0.05; done")
        await bench.printed(instance_id, "up")
        pid = bench.host.instances[instance_id].process.pid
        await bench.market.stop(instance_id)
        await bench.reaches(instance_id, "stopped")
        assert not tools.alive(pid)


async def test_a_reboot_runs_the_program_again_on_the_same_disk(bench):
    instance_id = await bench.rent(onstart="echo x >> kept; echo boots $(wc -l < kept); exec sleep 1000")
    await bench.printed(instance_id, "boots 1")
    await bench.market.reboot(instance_id)
    await bench.printed(instance_id, "boots 2")
    await bench.reaches(instance_id, "running")


async def test_a_recycle_begins_with_an_empty_disk(bench, tools):
    instance_id = await bench.rent(onstart="echo x >> kept; echo boots $(wc -l < kept); exec sleep 1000")
    await bench.printed(instance_id, "boots 1")
    (await bench.http.put(f"/api/v0/instances/recycle/{instance_id}/", json={})).raise_for_status()

    async def twice():
        return (await bench.market.logs(instance_id)).split() == ["boots", "1", "boots", "1"]

    await tools.until(twice, what="a second first boot")


async def test_an_updated_template_takes_effect_at_the_next_start_and_keeps_what_the_launch_gave(bench):
    instance_id = await bench.rent(
        template_hash="server", env={"GIVEN": "by the launch", "-p 3000:3000": "1"}
    )
    await bench.reaches(instance_id, "running")
    await bench.http.post(
        "/api/v0/template/",
        json={
            "name": "new",
            "onstart": "echo $GIVEN from $FROM; exec sleep 1000",
            "env": "-e FROM=new",
        },
    )
    newest = (await bench.http.get("/api/v0/template/")).json()["templates"][-1]
    await bench.market.update_template(instance_id, Launch(label="", template_hash=newest["hash_id"]))
    assert bench.host.instances[instance_id].process.alive
    await bench.market.reboot(instance_id)
    await bench.printed(instance_id, "by the launch from new")


async def test_an_instance_created_stopped_waits_to_be_started(bench):
    offer = await bench.offer()
    instance_id = await bench.market.create(
        offer, Launch(label="x", template_hash="sleeper", disk_gb=1, extra={"target_state": "stopped"})
    )
    assert (await bench.market.show(instance_id)).actual_status == "stopped"
    assert bench.host.instances[instance_id].process is None
    await bench.market.start(instance_id)
    await bench.reaches(instance_id, "running")


async def test_commands_in_any_order_end_where_the_last_one_wants(bench, tools):
    instance_id = await bench.rent()
    for verb in ("stop", "start", "reboot", "stop", "start", "start", "stop"):
        await getattr(bench.market, verb)(instance_id)
    await bench.reaches(instance_id, "stopped")
    assert bench.host.instances[instance_id].process is None
    for verb in ("start", "reboot", "stop", "start"):
        await getattr(bench.market, verb)(instance_id)

    async def runs():
        process = bench.host.instances[instance_id].process
        shown = await bench.market.show(instance_id)
        return shown.actual_status == "running" and process is not None and process.alive

    await tools.until(runs, what="the process of the last start")


async def test_the_list_holds_every_page_and_filters_by_label(tmp_path, tools):
    from hosts import MachineSettings

    machines = (MachineSettings(name="tiny", count=60, dollars_per_hour=0.01),)
    async with tools.running(tools.settings_for(tmp_path / "m", machines=machines)) as bench:
        for index, offer in enumerate(await bench.offers(limit=60)):
            owner = "a" if index % 2 else "b"
            await bench.market.create(
                offer.id,
                Launch(
                    label=f"stoker:{owner}:{index}",
                    template_hash="sleeper",
                    disk_gb=1,
                    extra={"target_state": "stopped"},
                ),
            )
        assert len(await bench.market.list()) == 60
        assert len(await bench.market.list(label_prefix="stoker:a:")) == 30
        page = (await bench.http.get("/api/v1/instances/")).json()
        assert (len(page["instances"]), page["total_instances"]) == (25, 60)


async def test_bulk_calls_act_on_each_instance(bench):
    ids = [await bench.rent(), await bench.rent()]
    (await bench.http.put("/api/v0/instances/", json={"ids": ids, "state": "stopped"})).raise_for_status()
    for instance_id in ids:
        await bench.reaches(instance_id, "stopped")
    response = await bench.http.request("DELETE", "/api/v0/instances/", json={"instance_ids": ids})
    response.raise_for_status()
    assert await bench.market.list() == []


async def test_an_instance_can_be_relabelled(bench):
    instance_id = await bench.rent(label="old")
    (await bench.http.put(f"/api/v0/instances/{instance_id}/", json={"label": "new"})).raise_for_status()
    assert (await bench.market.show(instance_id)).label == "new"


async def test_logs_are_the_last_lines(bench):
    instance_id = await bench.rent(onstart="seq 1 50; exec sleep 1000")
    await bench.printed(instance_id, "50")
    assert await bench.market.logs(instance_id, tail=3) == "48\n49\n50"


async def test_two_destroys_at_once_are_one(bench):
    instance_id = await bench.rent()
    await bench.reaches(instance_id, "running")
    await asyncio.gather(*(bench.market.destroy(instance_id) for _ in range(3)))
    assert await bench.gone(instance_id)
    charges = (await bench.http.get("/host/charges/")).json()["instances"]
    assert [row["id"] for row in charges] == [instance_id]


async def test_a_disk_that_cannot_be_made_fails_that_instance_and_not_the_marketplace(bench):
    first = await bench.rent(kind="CPU large")
    # A file where the next instance's disk should be.
    bench.host.resources.home(first + 1).write_text("in the way")
    failed = await bench.reaches(await bench.rent(), "exited")
    assert "host failed" in failed.status_msg
    await bench.reaches(await bench.rent(), "running")
    bench.host.resources.home(failed.id).unlink()
    await bench.market.start(failed.id)
    await bench.reaches(failed.id, "running")


async def test_a_full_machine_offers_nothing_and_goes_on(bench):
    ids = [await bench.rent(), await bench.rent(), await bench.rent(kind="CPU large")]
    assert await bench.offers() == []
    await asyncio.gather(*(bench.market.destroy(one) for one in ids))
    assert len(await bench.offers()) == 3


async def test_of_concurrent_creates_of_one_offer_one_succeeds(bench):
    offer = await bench.offer("CPU large")
    launch = Launch(label="x", template_hash="sleeper", disk_gb=1)
    answers = await asyncio.gather(
        *(bench.market.create(offer, launch) for _ in range(8)), return_exceptions=True
    )
    assert sum(isinstance(one, int) for one in answers) == 1
    assert sum(isinstance(one, OfferGone) for one in answers) == 7


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_the_order_of_commands_an_instance_never_runs_twice(bench, tools, seed):
    chance = random.Random(seed)
    instance_id = await bench.rent()
    supervisor = bench.host.instances[instance_id]
    for _ in range(12):
        command = chance.choice(["start", "stop", "reboot", "recycle", "die", "back"])
        if command == "recycle":
            await bench.http.put(f"/api/v0/instances/recycle/{instance_id}/", json={})
        elif command == "die":
            await bench.arm(fault="host_dies")
        elif command == "back":
            await bench.http.delete("/host/faults/")
        else:
            await getattr(bench.market, command)(instance_id)
        if chance.random() < 0.5:
            await asyncio.sleep(0)
        assert len(proc.tagged(supervisor.tag)) <= 1
    await bench.http.delete("/host/faults/")
    await bench.market.start(instance_id)
    await bench.reaches(instance_id, "running")

    async def alone():
        return (
            sorted(proc.tagged(supervisor.tag)) == [supervisor.process.pid] if supervisor.process else False
        )

    await tools.until(alone, what="exactly one process")
    await bench.market.destroy(instance_id)
    assert proc.tagged(supervisor.tag) == {}


async def test_the_status_of_an_exited_instance_has_its_last_log_line_without_secrets(bench):
    script = "echo begin; printf '\\033[31mno model at /models/none with %s\\n\\n' \"$HF_TOKEN\" >&2; exit 3"
    instance_id = await bench.rent(onstart=script, env={"HF_TOKEN": "hf_canary_0123456789"})
    exited = await bench.reaches(instance_id, "exited")
    assert exited.status_msg == "exited with code 3: [31mno model at /models/none with ***"
