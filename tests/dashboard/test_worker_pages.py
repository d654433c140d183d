"""The page of one worker: its log and boot as text, also after its end, and what an operator can do with it."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest_asyncio

from tests.dashboard.conftest import Browser, until_page
from tests.dashboard.test_pages import HOSTILE
from tests.engine.conftest import BOB, EndpointDouble, Stage, WorkerDouble

GONE = "0123456789ab"


@pytest_asyncio.fixture(loop_scope="session")
async def stage(temporal: Any, tmp_path: Path) -> AsyncIterator[Stage]:
    """An engine with a folder of saved logs."""
    async with aiohttp.ClientSession() as http:
        stage = Stage(temporal, http)
        await stage.start_engine(saved_logs_dir=tmp_path / "logs")
        (tmp_path / "logs").mkdir()
        yield stage
        await stage.close()


async def running(stage: Stage) -> tuple[EndpointDouble, WorkerDouble]:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.ready(worker)
    return endpoint, worker


async def test_each_worker_has_a_page_with_its_figures(browser: Browser, stage: Stage) -> None:
    endpoint, worker = await running(stage)
    await worker.report(gpus=[{"index": 0, "name": "RTX 4090", "utilization_percent": 87.0}])
    await browser.sign_in()
    here = f"/endpoints/{endpoint.id}/workers/{worker.launch_id}"
    page = await until_page(browser, f"/endpoints/{endpoint.id}", here)
    page = await until_page(browser, here, "GPU 0")
    assert "87 %" in page
    for verb in ("Drain", "Reboot", "Destroy"):
        assert f"<summary>{verb}</summary>" in page
    assert "<summary>Resume</summary>" not in page


async def test_an_action_is_carried_out_by_the_workflow_and_a_destroy_is_confirmed(
    browser: Browser, stage: Stage
) -> None:
    endpoint, worker = await running(stage)
    await browser.sign_in()
    here = f"/endpoints/{endpoint.id}/workers/{worker.launch_id}"
    await until_page(browser, here, "Drain")
    assert "taken out of service" in (await browser.submit(f"{here}/act", action="drain"))[1]
    assert (await browser.submit(f"{here}/act", action="destroy"))[0] == 400
    assert (
        "destroyed once it is empty" in (await browser.submit(f"{here}/act", action="destroy", sure="yes"))[1]
    )
    assert await endpoint.handle.query("changed") == [
        {"launch_id": worker.launch_id, "action": "drain"},
        {"launch_id": worker.launch_id, "action": "destroy"},
    ]
    status, page = await browser.submit(f"{here}/act", action="reboot")
    assert status == 200
    assert "cannot be rebooted &lt;b&gt;now&lt;/b&gt;" in page, "the workflow's refusal, as text"
    assert (await browser.submit(f"{here}/act", action="explode"))[0] == 400
    assert (await browser.post(f"{here}/act", action="drain"))[0] == 403, "without the session's token"


async def test_a_phase_and_an_error_of_a_worker_are_text(browser: Browser, stage: Stage) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.script(groups=[1], members=[worker.member(s="model_loading")])
    await worker.report(loadtime=0.0, max_perf=0.0, phase="<b>\x1b[31m\u202e</b>")
    await browser.sign_in()
    page = await until_page(browser, f"/endpoints/{endpoint.id}", "&lt;b&gt;")
    assert "<b>\x1b" not in page
    assert "\u202e" not in page
    await worker.report(loadtime=0.0, max_perf=0.0, error_msg=HOSTILE)
    page = await until_page(browser, f"/endpoints/{endpoint.id}/workers/{worker.launch_id}", "It failed:")
    for raw in ("<script>alert", "<img", "\x1b", "\u202e"):
        assert raw not in page


async def test_a_held_worker_can_be_resumed(browser: Browser, stage: Stage) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.script(groups=[1], members=[worker.member(s="stopped", h=1)])
    await browser.sign_in()
    page = await until_page(browser, f"/endpoints/{endpoint.id}/workers/{worker.launch_id}", "held")
    assert "<summary>Resume</summary>" in page
    assert "<summary>Drain</summary>" not in page
    assert "<summary>Reboot</summary>" not in page


async def test_the_log_of_a_worker_that_is_gone_is_shown_as_text(
    browser: Browser, stage: Stage, tmp_path: Path
) -> None:
    endpoint = await stage.endpoint()
    saved = {
        "label": f"stoker:{endpoint.name}:{GONE}",
        "at": time.time() + 5,
        "text": f"first line\n{HOSTILE}\n</pre><script>alert(2)</script>\x1b]0;title\x07",
    }
    (tmp_path / "logs" / "4711.json").write_text(json.dumps(saved))
    await endpoint.handle.signal("log", {"kind": "destroy", "subject": GONE, "reason": f"error: {HOSTILE}"})
    await browser.sign_in()
    here = f"/endpoints/{endpoint.id}/workers/{GONE}"
    await until_page(browser, f"/endpoints/{endpoint.id}", here)
    page = await until_page(browser, here, "first line")
    assert "Its machine is released" in page
    assert "before it was rebooted or destroyed" in page
    for raw in ("<script>alert", "<img", "\x1b", "\u202e", "\x07"):
        assert raw not in page
    assert "first line\n&lt;script&gt;alert(1)" in page, "lines stay lines"
    assert "<summary>Drain</summary>" not in page


async def test_a_worker_of_another_account_or_endpoint_has_no_page(browser: Browser, stage: Stage) -> None:
    endpoint, worker = await running(stage)
    other = await stage.endpoint()
    await browser.sign_in()
    await until_page(browser, "/", other.name)
    assert (await browser.get(f"/endpoints/{other.id}/workers/{worker.launch_id}"))[0] == 404
    for name in ("ffffffffffff", "x", "%3Cscript%3E"):
        status, page = await browser.get(f"/endpoints/{endpoint.id}/workers/{name}")
        assert status == 404
        assert "<script>" not in page
    await browser.post("/sign-out", csrf=await browser.token())
    await browser.sign_in(BOB)
    assert (await browser.get(f"/endpoints/{endpoint.id}/workers/{worker.launch_id}"))[0] == 404
