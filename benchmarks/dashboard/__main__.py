"""The dashboard with 100 endpoints and 1,000 workers: time of a page, and CPU of an open page.

`python -m benchmarks.dashboard [--quick]`. The engine is a stand-in that answers the console API from memory, so the
figures are the dashboard's own. The CPU of an open page is the difference between many open pages and none. The first
paint is that of Chromium, if it is installed.
"""

import argparse
import asyncio
import os
import secrets
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from benchmarks.dashboard.film import show, sign_in, until
from engine.console.overview import BUCKET_SECONDS
from run.state_folder.lock import free_port
from tests.engine.clients.browser import BROWSER, open_page

ENDPOINTS, WORKERS_EACH = 100, 10
PAGES = 20
KEY = secrets.token_urlsafe(24)

_SERVE = """
import asyncio, sys
from pathlib import Path
from dashboard.app import serve
from dashboard.settings import DashboardSettings
key, engine, port, file = sys.argv[1:]
asyncio.run(serve(DashboardSettings(accounts={"default": key}, engine_url=engine, port=int(port),
    history_file=Path(file)), stop=asyncio.Event()))
"""


class StandIn:
    """The console API of an engine whose counters grow with time."""

    def __init__(self) -> None:
        self.began = time.time()

    def app(self) -> web.Application:
        """The application."""
        app = web.Application()
        app.router.add_get("/api/v0/overview/", self.overview)
        app.router.add_get("/api/v0/endptjobs/", self.endpoints)
        app.router.add_post("/get_endpoint_workers/", self.workers)
        app.router.add_route("*", "/{path:.*}", self.other)
        return app

    def figures(self, number: int) -> dict[str, Any]:
        """One endpoint's figures."""
        seconds = int(time.time() - self.began)
        counts = [seconds * (place + 1) for place in range(len(BUCKET_SECONDS) + 1)]
        return {
            "id": number,
            "name": f"endpoint-{number}",
            "state": "active",
            "health": "ok",
            "fault": "",
            "wait_code": "",
            "wait_reason": "",
            "wait_until": None,
            "changed_at": self.began + seconds // 10,
            "workers": {"idle": 6, "model_loading": 2, "stopped": 2},
            "stages": {"hot": 6, "booting": 2, "cold": 2, "failed": 0},
            "routable": 6,
            "draining": 0,
            "capacity": {"hot": 600.0, "booting": 200.0, "cold": 200.0},
            "outstanding_load": 50.0,
            "queue_requests": seconds % 7,
            "queue_load": 10.0,
            "queue_oldest_s": 0.4,
            "queue_expected_s": 0.2,
            "dollars_per_hour": {"hot": 1.8, "booting": 0.6},
            "requests_per_second": 5.0,
            "load_per_second": 400.0,
            "arrived_requests": seconds * 5,
            "arrived_load": seconds * (400.0 + seconds % 60),
            "outcomes": {"done": seconds * 5},
            "waited": {"counts": counts, "seconds": 1.0},
            "took": {"counts": counts, "seconds": 1.0},
        }

    async def overview(self, _: web.Request) -> web.Response:
        """All figures."""
        rows = [self.figures(number) for number in range(1, ENDPOINTS + 1)]
        return web.json_response(
            {"at": time.time(), "engine_id": "e", "bucket_seconds": BUCKET_SECONDS, "endpoints": rows}
        )

    async def endpoints(self, _: web.Request) -> web.Response:
        """All records."""
        rows = [{"id": n, "endpoint_name": f"endpoint-{n}"} for n in range(1, ENDPOINTS + 1)]
        return web.json_response({"results": rows})

    async def workers(self, _: web.Request) -> web.Response:
        """The workers of one endpoint."""
        row = {
            "status": "idle",
            "kind": "1x RTX_4090",
            "gpu_name": "RTX_4090",
            "launch_id": "a1b2c3d4e5f6",
            "cur_load_rolling_avg": time.time() % 100,
            "measured_perf": 100.0,
            "reqs_working": 3,
            "queued": 0,
            "dph_total": 0.3,
            "started_at": self.began,
            "error_msg": "",
            "suspect": False,
            "update_pending": False,
            "draining": False,
            "last_report_s": 0.5,
        }
        return web.json_response([row | {"id": number} for number in range(WORKERS_EACH)])

    async def other(self, request: web.Request) -> web.Response:
        """Decisions, requests, costs, status, advice and workergroups."""
        at = self.began
        lines = [
            {"at": at + n, "kind": "recruit", "subject": "a1b2c3", "reason": "below the needed capacity"}
            for n in range(200)
        ]
        ended = {"arrived_at": at, "cost": 10.0, "waited_s": 0.1, "took_s": 1.0, "busy_s": 0.9}
        requests = [{**ended, "launch_id": "a1b2c3", "outcome": "done", "request_idx": n} for n in range(100)]
        if request.path.endswith("/decisions/"):
            return web.json_response({"decisions": lines})
        if request.path.endswith("/requests/"):
            return web.json_response({"recent": requests, "slow": requests[:20], "failed": []})
        if request.path.endswith("/workergroups/"):
            return web.json_response({"results": []})
        return web.json_response({"dollars": 1.0, "dollars_per_hour": 2.0, "by_state": {"idle": 1.0}})


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def share(pid: int, seconds: float) -> float:
    """The share of one core that a process uses."""
    began, used = time.monotonic(), cpu_seconds(pid)
    await asyncio.sleep(seconds)
    return (cpu_seconds(pid) - used) / (time.monotonic() - began)


async def fetch(http: aiohttp.ClientSession, url: str) -> tuple[float, int]:
    """Seconds and bytes of one page."""
    began = time.monotonic()
    async with http.get(url) as answer:
        assert answer.status == 200, await answer.text()
        return time.monotonic() - began, len(await answer.read())


async def listen(http: aiohttp.ClientSession, url: str, until: asyncio.Event) -> None:
    """An open page."""
    async with http.get(url, timeout=aiohttp.ClientTimeout(total=None)) as stream:
        while not until.is_set():
            await stream.content.readline()


async def paints(url: str, profile: Path) -> dict[str, list[float]]:
    """Milliseconds to the first contentful paint of each page, by the browser's own clock."""
    found: dict[str, list[float]] = {}
    async with open_page(f"{url}/sign-in", profile) as tab:
        await sign_in(tab, KEY)
        for number in range(7):
            for name, path in (("list of 100 endpoints", "/"), ("page of an endpoint", "/endpoints/7")):
                await show(tab, url, f"{path}?n={number}")
                paint = "performance.getEntriesByName('first-contentful-paint')[0]"
                await until(tab, f"!!{paint}")
                found.setdefault(name, []).append(await tab.evaluate(f"{paint}.startTime"))
    return found


async def measure(seconds: float) -> None:
    """Print the figures."""
    runner = web.AppRunner(StandIn().app(), access_log=None)
    await runner.setup()
    engine, port = free_port(), free_port()
    await web.TCPSite(runner, "127.0.0.1", engine).start()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (KEY, f"http://127.0.0.1:{engine}", str(port), f"{folder}/day.sqlite")
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", _SERVE, *arguments)
        url = f"http://127.0.0.1:{port}"
        try:
            async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
                await _sign_in(http, url)
                await asyncio.sleep(5)
                for name, path in (("list of 100 endpoints", "/"), ("page of an endpoint", "/endpoints/7")):
                    found = [await fetch(http, url + path) for _ in range(15)]
                    median = statistics.median(seconds for seconds, _ in found)
                    print(f"{name}: {median * 1000:.0f} ms (median of 15), {found[-1][1] / 1000:.0f} kB")
                if BROWSER is not None:
                    for name, found in (await paints(url, Path(folder) / "profile")).items():
                        print(
                            f"{name}: first paint after {statistics.median(found):.0f} ms (median of {len(found)})"
                        )
                idle = await share(process.pid, seconds)
                until = asyncio.Event()
                pages = [
                    asyncio.create_task(listen(http, f"{url}/endpoints/{number}/events?range=10m", until))
                    for number in range(1, PAGES + 1)
                ]
                await asyncio.sleep(3)
                busy = await share(process.pid, seconds)
                until.set()
                for page in pages:
                    page.cancel()
                await asyncio.gather(*pages, return_exceptions=True)
            print(f"sampling 100 endpoints without an open page: {idle:.1%} of a core")
            print(f"each of {PAGES} open pages of different endpoints: {(busy - idle) / PAGES:.2%} of a core")
        finally:
            process.kill()
            await process.wait()
            await runner.cleanup()


async def _sign_in(http: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                async with http.post(f"{url}/sign-in", data={"key": KEY}) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.1)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter measurements")
    asyncio.run(measure(5.0 if parser.parse_args().quick else 20.0))


if __name__ == "__main__":
    main()
