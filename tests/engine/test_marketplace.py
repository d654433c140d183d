"""Priced offers, templates, and the warning about a search without offers, with a real marketplace of this machine."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from temporalio.testing import WorkflowEnvironment

from hosts import HostMarketSettings, MachineSettings, TemplateSettings, create_app
from tests.engine.conftest import ALICE, BOB, Stage
from tests.engine.test_console import Console, real_temporal  # noqa: F401 - a fixture

MARKET_KEY = "market-key-0123456789"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def market_url(tmp_path_factory) -> AsyncIterator[str]:
    folder: Path = tmp_path_factory.mktemp("market")
    terms = HostMarketSettings(
        state_dir=folder,
        api_keys=(MARKET_KEY,),
        machines=(
            MachineSettings(name="RTX 4090", count=2, dollars_per_hour=0.40, gpu_ram_mb=24_564, disk_gb=100),
            MachineSettings(name="H100 SXM", count=1, dollars_per_hour=2.00, gpu_ram_mb=81_559, disk_gb=100),
        ),
        templates=(TemplateSettings(name="sleeper", onstart="exec sleep 100", hash_id="tmpl"),),
        cpu_limit="off",
    )
    runner = web.AppRunner(create_app(terms, gpus=list), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def market_stage(real_temporal: WorkflowEnvironment, market_url: str) -> AsyncIterator[Stage]:  # noqa: F811
    async with aiohttp.ClientSession() as http:
        stage = Stage(real_temporal, http)
        await stage.start_engine(market_url=market_url, market_key=MARKET_KEY)
        yield stage
        await stage.close()


@pytest.fixture
def alice(market_stage: Stage) -> Console:
    return Console(market_stage, ALICE)


@pytest.fixture
def bob(market_stage: Stage) -> Console:
    return Console(market_stage, BOB)


async def test_offers_are_priced_with_the_workergroups_disk_cheapest_first(alice: Console) -> None:
    found = await alice.good(
        "POST", "/api/v0/offers/", {"search_params": "gpu_ram>=20", "launch_args": "--disk 73"}
    )
    assert [row["gpu_name"] for row in found["offers"]] == ["RTX 4090", "RTX 4090", "H100 SXM"]
    # 73 GB at 0.10 $ a GB and month are 0.01 $/h
    assert [row["hot_dollars_per_hour"] for row in found["offers"]] == pytest.approx([0.41, 0.41, 2.01])
    assert found["offers"][0]["cold_dollars_per_hour"] == pytest.approx(0.01)
    assert (found["market"], found["disk_gb"], found["reason"]) == ("host", 73.0, "")


async def test_a_search_without_offers_names_the_filter_and_what_there_is(alice: Console) -> None:
    found = await alice.good("POST", "/api/v0/offers/", {"search_params": "gpu_name=RTX_4090 gpu_ram>=80"})
    assert found["offers"] == []
    assert "without gpu_ram>=80000 2 would match (gpu_ram 24564)" in found["reason"]
    assert "without gpu_name=RTX 4090 1 would match (gpu_name: H100 SXM)" in found["reason"]


async def test_a_disk_larger_than_every_machine_has_is_named(alice: Console) -> None:
    found = await alice.good("POST", "/api/v0/offers/", {"search_params": "", "launch_args": "--disk 500"})
    assert found["reason"] == "no offer matches now; without a disk of 500 GB 3 would match (disk_space 100)"


async def test_a_search_that_cannot_be_read_is_refused(alice: Console) -> None:
    status, said = await alice("POST", "/api/v0/offers/", {"search_params": "gpu_ram>"})
    assert (status, said["error"]) == (400, "invalid_search_params")
    status, said = await alice("POST", "/api/v0/offers/", {"template_hash": "absent"})
    assert (status, said["error"]) == (400, "no_such_template")


async def test_a_workergroup_that_no_offer_matches_is_created_with_a_warning(alice: Console) -> None:
    number = await alice.create("unmatched", max_workers=0)
    body = {"endpoint_id": number, "template_hash": "tmpl", "search_params": "gpu_ram>=80 num_gpus=8"}
    made = await alice.good("POST", "/api/v0/workergroups/", body)
    assert "without num_gpus=8 1 would match (num_gpus 1)" in made["warning"]
    matched = await alice.good("POST", "/api/v0/workergroups/", body | {"search_params": "gpu_ram>=80"})
    assert "warning" not in matched


async def test_a_workergroup_whose_template_has_unreadable_filters_is_created_with_a_warning(
    alice: Console,
) -> None:
    wanted = {"name": "typo", "image": "img", "extra_filters": "{num_gpus: 1}"}
    made = (await alice.good("POST", "/api/v0/template/", wanted))["template"]
    number = await alice.create("typo", max_workers=0)
    body = {"endpoint_id": number, "template_hash": made["hash_id"], "search_params": ""}
    warning = (await alice.good("POST", "/api/v0/workergroups/", body))["warning"]
    assert warning.startswith(
        f"the extra filters of template {made['hash_id']} cannot be parsed: not valid JSON"
    )


async def test_an_equal_template_is_created_once_and_deleted_when_no_workergroup_uses_it(
    alice: Console, bob: Console
) -> None:
    wanted = {"name": "preset", "image": "img", "onstart": "exec sleep 1", "env": "-e MODEL=m"}
    made = (await alice.good("POST", "/api/v0/template/", wanted))["template"]
    assert (await bob.good("POST", "/api/v0/template/", wanted))["template"]["hash_id"] == made["hash_id"]
    number = await alice.create("uses-it", max_workers=0)
    group = {"endpoint_id": number, "template_hash": made["hash_id"], "search_params": ""}

    # The stage's workflow has another marketplace, which does not know this template.
    group_id = (await alice.good("POST", "/api/v0/workergroups/", group))["id"]
    status, said = await bob("DELETE", "/api/v0/template/", {"hash_id": made["hash_id"]})
    assert (status, said["error"]) == (409, "template_in_use")
    await alice.good("DELETE", f"/api/v0/workergroups/{group_id}/")
    await bob.good("DELETE", "/api/v0/template/", {"template_id": made["id"]})
    status, said = await bob("DELETE", "/api/v0/template/", {"hash_id": made["hash_id"]})
    assert (status, said["error"]) == (404, "no_such_template")


@pytest.mark.parametrize("env", ["-e HF_TOKEN=hf_0123456789abcdef", {"HF_TOKEN": "hf_0123456789abcdef"}])
async def test_a_secret_in_plain_text_is_refused_and_not_repeated(alice: Console, env) -> None:
    status, said = await alice("POST", "/api/v0/template/", {"name": "x", "env": env})
    assert (status, said["error"]) == (400, "plain_secret")
    assert "HF_TOKEN=secret:HF_TOKEN" in said["msg"]
    assert "hf_0123456789abcdef" not in str(said)
