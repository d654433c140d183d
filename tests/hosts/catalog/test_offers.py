"""Offers: one per free slot, at the settings' prices, found with the search grammar."""

import pytest
from pydantic import ValidationError

from hosts import GpuSettings, HostMarketSettings, MachineSettings, TemplateSettings
from hosts.catalog.gpus import Gpu, find_gpus
from market.interface import Launch, OfferGone, Refused
from market.query import parse_order, query_of

H200 = Gpu(index=0, name="H200", ram_mb=143_771, driver="580.65.06")


async def found(bench, text: str, **more) -> list[str]:
    return [one.gpu_name for one in await bench.market.search(query_of(text, **more))]


async def test_there_is_one_offer_per_free_slot_with_an_id_of_its_own(bench):
    offers = await bench.offers()
    assert sorted(one.gpu_name for one in offers) == ["CPU large", "CPU small", "CPU small"]
    assert len({one.id for one in offers}) == len({one.machine_id for one in offers}) == 3


async def test_offers_are_found_with_the_search_grammar(bench):
    assert await found(bench, "gpu_name=CPU_large verified=true rentable=true rented=false") == ["CPU large"]
    assert await found(bench, "dph<0.2") == ["CPU small", "CPU small"]
    assert await found(bench, "dlperf>=40 num_gpus=1") == ["CPU large"]
    assert await found(bench, "cuda_vers>=12") == []


async def test_offers_come_best_first_and_no_more_than_asked(bench):
    by_price = [one.dph_base for one in await bench.offers(order=parse_order("dph"))]
    assert by_price == [0.10, 0.10, 0.30]
    assert [one.gpu_name for one in await bench.offers(order=parse_order("dlperf_usd-"), limit=1)] == [
        "CPU large"
    ]


async def test_the_price_counts_the_asked_disk(bench):
    small = (await bench.offers(filters={"gpu_name": {"eq": "CPU small"}}, disk_gb=73.0 / 2))[0]
    assert small.dph_total == pytest.approx(0.10 + 0.1 * 36.5 / 730)
    assert await bench.offers(disk_gb=10_000) == []


async def test_bids_are_offered_by_kinds_that_take_them_at_their_least_price(bench):
    (offer,) = await bench.offers(type="bid")
    assert (offer.gpu_name, offer.is_bid, offer.dph_base) == ("CPU large", True, 0.05)
    instance_id = await bench.rent(kind="CPU large", bid_dollars_per_hour=0.07)
    assert (await bench.market.show(instance_id)).dph_base == 0.07
    (
        await bench.http.put(f"/api/v0/instances/bid_price/{instance_id}/", json={"price": 0.01})
    ).raise_for_status()
    assert (await bench.reaches(instance_id, "stopped")).status_msg == "outbid"


async def test_a_query_of_an_unknown_kind_is_refused(bench):
    with pytest.raises(Refused, match="on-demand"):
        await bench.offers(type="gift")


async def test_unnamed_gpus_are_offered_at_the_settings_price(tmp_path, tools):
    settings = tools.settings_for(tmp_path / "m", gpus=GpuSettings(dollars_per_hour=2.5), machines=())
    async with tools.running(settings, gpus=lambda: [H200]) as bench:
        (offer,) = await bench.offers()
        assert (offer.gpu_name, offer.gpu_ram, offer.dph_base) == ("H200", 143_771, 2.5)
        assert await found(bench, "gpu_ram>=140 driver_version>=535.86.05") == ["H200"]
        instance_id = await bench.rent(kind="H200", onstart="echo gpu $CUDA_VISIBLE_DEVICES; exec sleep 1000")
        await bench.printed(instance_id, "gpu 0")


async def test_a_machine_kind_with_a_missing_gpu_is_not_offered(tmp_path, tools):
    machines = (MachineSettings(name="H200 half", count=2, dollars_per_hour=1, gpu_indices=(0,)),)
    settings = tools.settings_for(tmp_path / "m", machines=machines)
    async with tools.running(settings, gpus=lambda: [H200]) as bench:
        halves = await bench.offers()
        assert [one.gpu_name for one in halves] == ["H200 half", "H200 half"]
        assert [one.gpu_ram for one in halves] == [143_771 / 2] * 2
    async with tools.running(settings, gpus=list) as bench:
        assert await bench.offers() == []


def gpus(count: int) -> list[Gpu]:
    return [Gpu(index=index, name="RTX 4090", ram_mb=24_564, driver="580.65.06") for index in range(count)]


SHOW_GPUS = 'echo "gpus $CUDA_VISIBLE_DEVICES of $GPU_COUNT"; exec sleep 1000'


async def kinds(bench, text: str = "") -> list[str]:
    return sorted(one.kind for one in await bench.market.search(query_of(text)))


async def test_equal_gpus_are_offered_singly_and_in_groups(tmp_path, tools):
    settings = tools.settings_for(
        tmp_path / "m", gpus=GpuSettings(dollars_per_hour=0.5, dlperf=90), machines=()
    )
    async with tools.running(settings, gpus=lambda: gpus(5)) as bench:
        assert await kinds(bench) == ["1x RTX 4090"] * 5 + ["2x RTX 4090"] * 2 + ["4x RTX 4090"]
        pair, _, four = await bench.offers(filters={"num_gpus": {"gte": 2}}, order=parse_order("num_gpus"))
        assert (pair.num_gpus, pair.gpu_ram, pair.dph_base, pair.dlperf) == (2, 24_564, 1.0, 180)
        assert (four.num_gpus, four.dph_base) == (4, 2.0)
        assert await kinds(bench, "num_gpus>=2 gpu_total_ram>=90") == ["4x RTX 4090"]


async def test_no_gpu_is_rented_twice(tmp_path, tools):
    settings = tools.settings_for(tmp_path / "m", machines=())
    async with tools.running(settings, gpus=lambda: gpus(4)) as bench:
        offers = await bench.offers(order=parse_order("num_gpus-"))
        pair = next(one for one in offers if one.num_gpus == 2)
        instance_id = await bench.market.create(
            pair.id, Launch(label="stoker:a:0", onstart=SHOW_GPUS, disk_gb=1.0)
        )
        # GPUs 0 and 1 are in use: left are 2 and 3, singly or together.
        assert await kinds(bench) == ["1x RTX 4090"] * 2 + ["2x RTX 4090"]
        for taken in (offers[0], pair):
            with pytest.raises(OfferGone):
                await bench.market.create(
                    taken.id, Launch(label="stoker:b:0", onstart=SHOW_GPUS, disk_gb=1.0)
                )
        await bench.printed(instance_id, "gpus 0,1 of 2")
        row = await bench.row(instance_id)
        assert (row["num_gpus"], row["gpu_total_ram"]) == (2, 2 * 24_564)
        last = await bench.market.create(
            (await bench.offers(filters={"num_gpus": {"eq": 2}}))[0].id,
            Launch(label="stoker:c:0", onstart=SHOW_GPUS, disk_gb=1.0),
        )
        await bench.printed(last, "gpus 2,3 of 2")
        assert await kinds(bench) == []
        await bench.market.destroy(instance_id)
        assert await kinds(bench) == ["1x RTX 4090"] * 2 + ["2x RTX 4090"]


async def test_an_instance_keeps_its_gpus_when_the_settings_change(tmp_path, tools):
    def settings(*indices):
        pair = MachineSettings(name="pair", num_gpus=2, gpu_indices=indices, dollars_per_hour=1)
        return tools.settings_for(tmp_path / "m", machines=(pair,))

    async with tools.running(settings(0, 1), gpus=lambda: gpus(4)) as bench:
        instance_id = await bench.rent(kind="pair", onstart=SHOW_GPUS)
        await bench.printed(instance_id, "gpus 0,1 of 2")
    async with tools.running(settings(2, 3), gpus=lambda: gpus(4)) as bench:
        await bench.printed(instance_id, "gpus 0,1 of 2\ngpus 0,1 of 2")
        # The pair is rented, and GPUs 0 and 1, which the settings no longer name, are in use.
        assert await bench.offers() == []


def test_a_machine_without_gpus_is_supported():
    assert all(gpu.ram_mb > 0 for gpu in find_gpus())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"api_keys": ()}, "api_keys"),
        ({"api_keys": ("tiny",)}, "at least 8"),
        ({"port_min": 2000, "port_max": 2005}, "fewer than"),
        ({"machines": ({"name": "a", "dollars_per_hour": 0},)}, "dollars_per_hour"),
        (
            {"machines": ({"name": "a b", "dollars_per_hour": 1}, {"name": "a_b", "dollars_per_hour": 1})},
            "same name",
        ),
        ({"machines": ({"name": "a", "dollars_per_hour": 1, "cpu": 3},)}, "cpu"),
        ({"machines": ({"name": "a", "dollars_per_hour": 1, "gpu_indices": (0, 0)},)}, "twice"),
        (
            {"machines": ({"name": "a", "dollars_per_hour": 1, "num_gpus": 2, "gpu_indices": (0,)},)},
            "a multiple",
        ),
        ({"machines": ({"name": "a", "dollars_per_hour": float("nan")},)}, "dollars_per_hour"),
        ({"templates": ({"name": "a", "env": "-e 'open"},)}, "never closed"),
        ({"instances_on_exit": "burn"}, "instances_on_exit"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_field(tmp_path, changes, says):
    with pytest.raises(ValidationError) as refused:
        HostMarketSettings(**{"state_dir": tmp_path, "api_keys": ("long-enough-key",), **changes})
    assert says in str(refused.value)


async def test_a_template_is_found_by_id_and_by_hash(bench):
    by_hash = await bench.market.template(hash_id="server")
    by_id = await bench.market.template(id=by_hash.id)
    assert by_id == by_hash
    assert by_hash.env == "-e FROM=template"
    for unknown in ({"hash_id": "nobody"}, {"id": 999}):
        with pytest.raises(Refused) as refused:
            await bench.market.template(**unknown)
        assert refused.value.code == "no_such_template"


async def test_the_same_content_is_the_same_template(bench):
    body = {"name": "t", "image": "x", "onstart": "echo 1", "extra_filters": {"verified": {"eq": True}}}
    first, second, other = [
        (await bench.http.post("/api/v0/template/", json=given)).json()["template"]
        for given in (body, body, {**body, "onstart": "echo 2"})
    ]
    assert (first["id"], first["hash_id"]) == (second["id"], second["hash_id"])
    assert first["hash_id"] != other["hash_id"]
    assert (
        await bench.market.template(hash_id=first["hash_id"])
    ).extra_filters == '{"verified": {"eq": true}}'


async def test_a_template_that_cannot_work_is_refused(bench):
    for body in ({"name": ""}, {"env": "-e 'open"}, {"recommended_disk_space": -1}, {"onstart": 7}):
        response = await bench.http.post("/api/v0/template/", json=body)
        assert (response.status_code, response.json()["error"]) == (400, "invalid_args")


async def test_a_deleted_template_is_gone_for_new_instances_only(bench):
    instance_id = await bench.rent(template_hash="sleeper")
    body = {"hash_id": "sleeper"}
    assert (await bench.http.request("DELETE", "/api/v0/template/", json=body)).status_code == 200
    assert (await bench.http.request("DELETE", "/api/v0/template/", json=body)).status_code == 404
    await bench.reaches(instance_id, "running")
    with pytest.raises(Refused):
        await bench.rent(template_hash="sleeper")


async def test_args_of_a_template_are_read_as_a_shell_would(bench):
    body = TemplateSettings(name="a", args_str="bash -c 'echo two  words; exec sleep 1000'").model_dump()
    template = (await bench.http.post("/api/v0/template/", json=body)).json()["template"]
    await bench.printed(await bench.rent(template_id=template["id"]), "two words")
