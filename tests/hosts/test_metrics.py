"""`/metrics` of the host marketplace: its counters, and input that a hostile caller cannot add."""

import shutil
import subprocess

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from hosts import GpuSettings
from hosts.api.metrics import DECLARED
from hosts.catalog.gpus import Gpu
from market.interface import Launch

PROMTOOL = shutil.which("promtool")


def samples_of(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in parse(text)
        for sample in family.samples
    }


async def scrape(bench) -> str:
    async with httpx.AsyncClient(trust_env=False) as keyless:
        answer = await keyless.get(f"{bench.url}/metrics")
    assert answer.status_code == 200
    return answer.text


async def test_instances_slots_and_calls_are_counted(bench) -> None:
    number = await bench.rent()
    await bench.reaches(number, "running")
    await bench.http.get("/api/v0/instances/999999/")
    text = await scrape(bench)
    found = samples_of(text)
    assert found["stoker_host_instances", "running"] == 1
    assert found["stoker_host_slots", "1x CPU small", "rented"] == 1
    assert found["stoker_host_slots", "1x CPU small", "free"] == 1
    assert found["stoker_host_slots", "1x CPU large", "free"] == 1
    assert found["stoker_host_calls_total", "PUT", "/api/v0/asks/{id}/", "200"] == 1
    assert found["process_open_fds",] > 0
    for declared in DECLARED:
        assert f"# TYPE {declared.name} {declared.kind}\n" in text
    if PROMTOOL is not None:
        done = subprocess.run(  # noqa: ASYNC221 - a short call of a local program
            [PROMTOOL, "check", "metrics"],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def test_a_slot_whose_gpu_is_rented_in_another_kind_is_not_free(tmp_path, tools) -> None:
    # Of GPUs 0 to 3 the pair 0, 1 is rented: left are 2 and 3, singly or together, and no group of four.
    found_gpus = [Gpu(index=index, name="A10", ram_mb=24_000, driver="580.65.06") for index in range(4)]
    settings = tools.settings_for(tmp_path / "m", gpus=GpuSettings(), machines=())
    async with tools.running(settings, gpus=lambda: found_gpus) as bench:
        pair = (await bench.offers(filters={"num_gpus": {"eq": 2}}))[0]
        await bench.market.create(pair.id, Launch(label="stoker:a:0", onstart="exec sleep 1000", disk_gb=1.0))
        found = samples_of(await scrape(bench))
    slots = {key[1:]: value for key, value in found.items() if key[0] == "stoker_host_slots"}
    assert slots == {
        ("1x A10", "free"): 2,
        ("1x A10", "rented"): 0,
        ("2x A10", "free"): 1,
        ("2x A10", "rented"): 1,
        ("4x A10", "free"): 0,
        ("4x A10", "rented"): 0,
    }


async def test_paths_and_methods_of_a_caller_s_choice_add_one_series(bench) -> None:
    async with httpx.AsyncClient(base_url=bench.url, trust_env=False) as stranger:
        before = samples_of(await scrape(bench))
        for number in range(30):
            await stranger.request(f"M{number}", f"/api/{number}%22%0Astoker_fake%201")
        await stranger.get("/api/v0/instances/7/")
        after = samples_of(await scrape(bench))
    new = {key for key in set(after) - set(before) if key[0] == "stoker_host_calls_total"}
    assert new <= {
        ("stoker_host_calls_total", "other", "other", "401"),
        ("stoker_host_calls_total", "other", "other", "404"),
        ("stoker_host_calls_total", "GET", "/api/v0/instances/{id}/", "401"),
        ("stoker_host_calls_total", "GET", "/metrics", "200"),
    }
    assert len(new) >= 2
    assert not any("fake" in part for key in after for part in key)


@pytest.mark.parametrize("path", ["/metrics/", "/metricsX", "/metrics/../api/v0/instances/"])
async def test_only_the_page_itself_needs_no_key(bench, path: str) -> None:
    async with httpx.AsyncClient(base_url=bench.url, trust_env=False) as stranger:
        assert (await stranger.get(path)).status_code in {400, 401, 404}
