"""Metrics of a Temporal worker's process, counted while an endpoint lives, and served to a real scraper."""

import asyncio
import shutil
import subprocess
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from market.interface import Unavailable
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.states import WorkerState
from tests.workflows.world import group
from webserver.metrics_page import served_page
from workflows.temporal_worker.metrics import DECLARED, TemporalWorkerMetrics

PROMTOOL = shutil.which("promtool")


async def scrape(url: str) -> str:
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        assert answer.status == 200
        return await answer.text()


async def test_a_worker_counts_what_it_does_for_an_endpoint(a_world: Any) -> None:
    metrics = TemporalWorkerMetrics("build-7")
    metrics.market_call("search", "done", 0.2)
    async with a_world(metrics=metrics) as world:
        world.market.fail_next("create", Unavailable("down"), times=1)
        await world.start(EndpointConfig(min_load=0, min_workers=1, max_workers=2), [group()])
        assert await world.live(
            300, until=lambda memo: any(each.s is WorkerState.READY for each in memo.members)
        )
    events = [event for history in await world.histories() for event in history.events]
    async with served_page(metrics.registry, "127.0.0.1", 0) as url:
        text = await scrape(url)
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in parse(text)
        for sample in family.samples
    }
    assert found["stoker_activity_seconds_count", "plan", "done"] > 0
    assert found["stoker_activity_seconds_count", "create_instance", "failed"] == 1
    assert found["stoker_temporal_actions_total", "activity_retry"] == 1
    assert found["stoker_workflow_task_seconds_count", "done", "EndpointWorkflow"] > 0
    assert found["stoker_market_call_seconds_count", "search", "done"] == 1
    assert any(name == "stoker_build_info" and "build-7" in labels for name, *labels in found)
    assert found["process_start_time_seconds",] > 0
    kinds = [event.WhichOneof("attributes") for event in events]
    assert found["stoker_temporal_actions_total", "timer"] == kinds.count("timer_started_event_attributes")
    assert found["stoker_temporal_actions_total", "activity"] == kinds.count(
        "activity_task_scheduled_event_attributes"
    )
    names = {sample.name for family in parse(text) for sample in family.samples}
    for declared in DECLARED:
        assert declared.name in names or f"{declared.name}_bucket" in names
    if PROMTOOL is not None:
        done = await asyncio.to_thread(
            subprocess.run,
            [PROMTOOL, "check", "metrics"],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def test_a_page_of_metrics_has_nothing_else_and_no_port_twice() -> None:
    metrics = TemporalWorkerMetrics()
    async with served_page(metrics.registry, "127.0.0.1", 0) as url, aiohttp.ClientSession() as http:
        async with http.get(url.removesuffix("/metrics")) as answer:
            assert answer.status == 404
        async with http.post(url) as answer:
            assert answer.status == 405
        port = int(url.rpartition(":")[2].removesuffix("/metrics"))
        with pytest.raises(OSError, match="in use"):
            async with served_page(metrics.registry, "127.0.0.1", port):
                raise AssertionError("the port was free")
