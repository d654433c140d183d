"""Ranges of more than a day come from a real Prometheus, and the page gives the reason if it has no samples."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from dashboard.app import create_app
from dashboard.prometheus import ANSWER_BYTES_MAX, POINTS, RANGES, Prometheus, Window, expressions
from dashboard.settings import DashboardSettings
from engine.metrics.families import HISTOGRAMS, OF_ENDPOINTS
from tests.dashboard.conftest import Browser, until_page
from tests.dashboard.test_pages import HOSTILE
from tests.deploy.prometheus_server import PROMTOOL, needs_prometheus, prometheus_server
from tests.engine.conftest import ALICE, Stage

WEEK = RANGES["7d"]
STEP = WEEK / POINTS
SCRAPE_SECONDS = 300


def test_every_query_uses_metrics_that_the_engine_exports() -> None:
    exported = {family.sample_name for family in OF_ENDPOINTS} | {
        f"{family.name}{suffix}" for family in HISTOGRAMS for suffix in ("", "_bucket")
    }
    for query in expressions('endpoint="llm"', "60s").values():
        assert set(re.findall(r"\bstoker_\w+", query)) <= exported


def two_days(now: float, name: str) -> str:
    """Scrapes of two engines over the last two days as OpenMetrics: 50 load/s arrive at each, three workers are ready.

    A fourth worker boots in one scrape of eight, and the requests wait between 1 s and 2.5 s.
    """
    at = [now - 2 * 86_400 + SCRAPE_SECONDS * number for number in range(2 * 86_400 // SCRAPE_SECONDS + 1)]
    lines: dict[str, list[str]] = {}

    def add(family: str, sample: str, labels: str, value: float, when: float) -> None:
        line = f'{sample}{{endpoint="{name}",{labels}}} {value} {when:.0f}'
        lines.setdefault(family, []).append(line)

    for engine in ("one", "two"):
        own = f'instance="{engine}"'
        for number, when in enumerate(at):
            seconds = number * SCRAPE_SECONDS
            add("stoker_arrived_load counter", "stoker_arrived_load_total", own, 50.0 * seconds, when)
            add("stoker_workers gauge", "stoker_workers", f'{own},state="idle"', 3, when)
            if number % 8 == 0:
                add("stoker_workers gauge", "stoker_workers", f'{own},state="model_loading"', 1, when)
            add("stoker_workers_max gauge", "stoker_workers_max", own, 10, when)
            for stage, load, dollars in (("hot", 300, 1.5), ("booting", 100, 0.5), ("cold", 0, 0)):
                labels = f'{own},stage="{stage}"'
                add("stoker_capacity gauge", "stoker_capacity_load_per_second", labels, load, when)
                add("stoker_gpu gauge", "stoker_gpu_dollars_per_hour", labels, dollars, when)
            add("stoker_queue_requests gauge", "stoker_queue_requests", own, 2, when)
            add("stoker_queue_oldest gauge", "stoker_queue_oldest_seconds", own, 1.0 + (number == 40), when)
            for bound, count in (("1.0", 0), ("2.5", seconds), ("+Inf", seconds)):
                labels = f'{own},le="{bound}"'
                add("stoker_wait histogram", "stoker_request_wait_seconds_bucket", labels, count, when)
    text = []
    for found in lines.values():
        text += sorted(found, key=lambda line: (line.rpartition("}")[0], float(line.rpartition(" ")[2])))
    return "\n".join([*text, "# EOF\n"])


@contextlib.asynccontextmanager
async def prometheus_with(text: str, folder: Path) -> AsyncIterator[str]:
    """A real Prometheus that has these samples of the past."""
    assert PROMTOOL is not None
    (folder / "scrapes.txt").write_text(text)
    done = await asyncio.create_subprocess_exec(
        PROMTOOL, *("tsdb", "create-blocks-from", "openmetrics", "scrapes.txt", "data"), cwd=folder
    )
    assert await done.wait() == 0
    async with prometheus_server(folder, {"global": {}}) as url:
        yield url


async def read(url: str, name: str, now: float, **labels: str) -> Window:
    source = Prometheus(url, labels)
    try:
        return await source.window(name, "7d", now, patience_seconds=60.0)
    finally:
        await source.close()


@needs_prometheus
async def test_a_week_has_the_means_and_peaks_of_what_the_engines_exported(tmp_path: Path) -> None:
    now = time.time() // SCRAPE_SECONDS * SCRAPE_SECONDS
    async with prometheus_with(two_days(now, "llm"), tmp_path) as url:
        window = await read(url, "llm", now)
        assert window.notice == ""
        assert (window.start, window.end) == (now - WEEK, now)
        # samples of the last two days of seven
        assert len(window.samples) == pytest.approx(POINTS * 2 / 7, abs=2)
        middle = window.samples[len(window.samples) // 2]
        assert middle.load == pytest.approx(100.0, rel=0.01), "the sum of both engines"
        assert middle.hot == pytest.approx(3.0), "the same workers, reported by both engines"
        assert middle.booting == pytest.approx(1 / 8, abs=0.03), "one scrape of eight"
        assert (middle.capacity_hot, middle.capacity_booting, middle.dollars_hot) == (300.0, 100.0, 1.5)
        # all waits are in the bucket from 1 to 2.5 s
        assert middle.wait_p50 == pytest.approx(1.75, abs=0.01)
        assert middle.wait_p99 == pytest.approx(2.485, abs=0.01)
        assert max(sample.queue_oldest for sample in window.samples) == 2.0, "the peak of one scrape"
        only = await read(url, "llm", now, instance="one")
        assert only.samples[5].load == pytest.approx(50.0, rel=0.01), "one engine, by its label"
        missing = await read(url, 'llm"} or vector(1) #', now)
        assert missing.samples == []
        assert "no samples of" in missing.notice


@pytest_asyncio.fixture(loop_scope="session")
async def long_dashboard(stage: Stage, request: pytest.FixtureRequest) -> AsyncIterator[Browser]:
    """A signed-in browser; its dashboard reads the Prometheus server of the parameter."""
    settings = DashboardSettings(
        accounts={"alice": ALICE},
        engine_url=stage.server.url,
        sample_seconds=0.05,
        prometheus_url=request.param,
    )
    server = TestServer(create_app(settings), handler_cancellation=True)
    await server.start_server()
    browser = Browser(f"http://127.0.0.1:{server.port}")
    await browser.sign_in()
    yield browser
    await browser.http.close()
    await server.close()


@pytest.mark.parametrize("long_dashboard", ["http://127.0.0.1:1"], indirect=True)
async def test_a_page_without_its_prometheus_says_so_and_keeps_its_other_parts(
    long_dashboard: Browser, stage: Stage
) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.ready(worker)
    here = f"/endpoints/{endpoint.id}"
    await until_page(long_dashboard, here, worker.launch_id)
    page = await until_page(long_dashboard, f"{here}?range=30d", "Prometheus at http://127.0.0.1:1 cannot")
    assert "Ranges up to 24h do not need it." in page
    assert worker.launch_id in page
    assert page.count('<figure class="chart">') == 4
    assert "cannot be read" not in await long_dashboard.page(f"{here}?range=24h")


async def test_without_a_prometheus_there_is_no_longer_range(browser: Browser, stage: Stage) -> None:
    endpoint = await stage.endpoint()
    await browser.sign_in()
    page = await until_page(browser, f"/endpoints/{endpoint.id}?range=30d", "range=24h")
    assert "range=30d" not in page
    assert 'href="?range=1h" aria-current="true"' in page


def series(values: str) -> str:
    """An answer of Prometheus with one series of these points."""
    labels = '{"state":"idle","stage":"hot"}'
    return f'{{"status":"success","data":{{"result":[{{"metric":{labels},"values":[{values}]}}]}}}}'


ANSWERS = [
    (200, "<html>a proxy's page</html>", "HTTP 200 without an answer of Prometheus"),
    (401, "", "HTTP 401 without an answer of Prometheus"),
    (422, '{"status":"error","errorType":"execution","error":"too many samples"}', "too many samples"),
    (200, '{"status":"success","data":{"result":7}}', "not a list of series"),
    (200, '{"status":"success","data":{"result":[{"metric":{}}]}}', "an unexpected form"),
    (200, '{"status":"success","data":{"result":[]}}', "no samples of"),
    (200, "[" * 200_000, "HTTP 200 without an answer of Prometheus"),
    (200, series(f"[1e9,{10**400}]"), "an unexpected form"),
    (200, series('[NaN,"1"],[Infinity,"1"],[1e300,"1"],[7,"1"]'), "no samples of"),
    (200, " " * (ANSWER_BYTES_MAX + 1), "its answer has more than 8 MiB"),
    (302, "", "HTTP 302 without an answer of Prometheus"),
]


@pytest.mark.parametrize(("status", "body", "said"), ANSWERS, ids=range(len(ANSWERS)))
async def test_an_answer_that_is_not_of_prometheus_is_named(status: int, body: str, said: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        headers = {"Location": "/elsewhere"} if status == 302 else {}
        return web.Response(status=status, text=body, content_type="application/json", headers=headers)

    app = web.Application()
    app.router.add_get("/prefix/api/v1/query_range", answer)
    server = TestServer(app)
    await server.start_server()
    try:
        window = await read(f"http://127.0.0.1:{server.port}/prefix", "llm", 1e9)
    finally:
        await server.close()
    assert window.samples == []
    assert said in window.notice


async def test_the_server_gets_the_authorization_and_no_page_shows_it() -> None:
    given = []

    async def answer(request: web.Request) -> web.Response:
        given.append(request.headers.get("Authorization"))
        return web.Response(status=401)

    app = web.Application()
    app.router.add_get("/api/v1/query_range", answer)
    async with TestServer(app) as server:
        source = Prometheus(f"http://127.0.0.1:{server.port}", {}, "Bearer of-the-test")
        window = await source.window("llm", "7d", 1e9, patience_seconds=60.0)
        await source.close()
    assert set(given) == {"Bearer of-the-test"}
    assert "of-the-test" not in window.notice + repr(source)


class Slow:
    """A server of one error, which can be held back."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.calls = 0

    async def answer(self, _: web.Request) -> web.Response:
        self.calls += 1
        await self.go.wait()
        return web.json_response({"status": "error", "errorType": "bad", "error": HOSTILE})


@pytest_asyncio.fixture(loop_scope="session")
async def slow() -> AsyncIterator[tuple[Slow, str]]:
    held = Slow()
    app = web.Application()
    app.router.add_get("/api/v1/query_range", held.answer)
    server = TestServer(app)
    await server.start_server()
    yield held, f"http://127.0.0.1:{server.port}"
    held.go.set()
    await server.close()


async def test_a_reading_that_failed_leaves_no_query_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboard.prometheus.TIMEOUT_SECONDS", 0.5)
    held: set[str] = set()
    all_others = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if "arrived_load" in request.query["query"]:
            await all_others.wait()
            return web.json_response(
                {"status": "error", "errorType": "bad_data", "error": "too many samples"}
            )
        held.add(request.query["query"])
        if len(held) == len(expressions("", "60s")) - 1:
            all_others.set()
        try:
            await asyncio.Event().wait()
        finally:
            held.remove(request.query["query"])
        raise AssertionError

    app = web.Application()
    app.router.add_get("/api/v1/query_range", answer)
    async with TestServer(app, handler_cancellation=True) as server:
        source = Prometheus(f"http://127.0.0.1:{server.port}", {})
        window = await source.window("llm", "7d", 1e9, patience_seconds=60.0)
        assert "too many samples" in window.notice
        async with asyncio.timeout(20):
            while held:
                await asyncio.sleep(0.05)
        await source.close()


async def test_pages_share_one_reading_and_do_not_wait_for_a_slow_one(slow: tuple[Slow, str]) -> None:
    held, url = slow
    source = Prometheus(url, {})
    first = await asyncio.gather(*(source.window("llm", "7d", 1e9, patience_seconds=0.01) for _ in range(5)))
    assert {window.notice for window in first} == {"Reading from Prometheus \u2026"}
    held.go.set()
    last = await source.window("llm", "7d", 1e9, patience_seconds=30.0)
    assert HOSTILE in last.notice
    assert held.calls == len(expressions("", "60s"))
    await source.close()


async def test_the_error_of_prometheus_is_text_on_the_page(stage: Stage, slow: tuple[Slow, str]) -> None:
    held, url = slow
    held.go.set()
    endpoint = await stage.endpoint()
    settings = DashboardSettings(
        accounts={"alice": ALICE}, engine_url=stage.server.url, sample_seconds=0.05, prometheus_url=url
    )
    async with TestServer(create_app(settings)) as server:
        browser = Browser(f"http://127.0.0.1:{server.port}")
        await browser.sign_in()
        page = await until_page(browser, f"/endpoints/{endpoint.id}?range=7d", "&lt;script&gt;alert(1)")
        for raw in ("<script>alert", "<img", "\x1b", "\u202e"):
            assert raw not in page
        await browser.http.close()
