"""What operator and client see of a boot that fails, and after how many seconds.

`python -m benchmarks.failed_boots --hub-python PYTHON [case …]`. Real processes: Temporal, engine, Temporal worker,
dashboard, the host marketplace and PyWorkers of the preset `http`. The model server is a script that fails as model
servers do: the package `huggingface_hub` of PYTHON downloads a gated repository and a misspelt one from a local server
that answers as the hub does, the disk is really full (`/dev/full`), the crash loop really exits five times. Seconds
count from the last message of the first failed start. Exit code 1 if a cause was not shown.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

import stoker
from benchmarks.engine.machine import facts
from benchmarks.failed_boots import model_hub
from hosts.settings import TemplateSettings
from run.commands.dev import DevStack
from run.settings import load_settings
from run.state_folder.lock import free_port

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 150.0
CLIENT_SECONDS = 60.0
"""After this time the client gives up waiting."""
AFTER_SECONDS = 10.0
"""In which a further machine would be rented."""


@dataclass(frozen=True, slots=True)
class FailedBoot:
    """A model server that fails while it boots."""

    name: str
    script: str
    """In bash; it ends with the last message before the exit."""
    says: str
    """The sentence that operator and client must see."""
    stops: bool
    """Whether no other machine can help, so that none is rented."""


_DOWNLOAD = '"$HUB_PYTHON" -c "import sys, huggingface_hub as hub; hub.snapshot_download(sys.argv[1])" {name}'
CASES = (
    FailedBoot(
        "gated-model",
        _DOWNLOAD.format(name=model_hub.GATED),
        "the repository is gated: accept its licence on huggingface.co and set HF_TOKEN",
        stops=True,
    ),
    FailedBoot(
        "wrong-name",
        _DOWNLOAD.format(name="acme/misspelt"),
        "there is no such model: correct MODEL_NAME",
        stops=True,
    ),
    FailedBoot(
        "full-disk",
        "python3 -c \"open('/dev/full', 'w').write('weights' * 99999)\"",
        "the disk is full: rent with a larger disk",
        stops=False,
    ),
    FailedBoot(
        "crash-loop",
        'echo "Segmentation fault in kernel 7"',
        "the model server exited with status 1",
        stops=False,
    ),
)


def template(case: FailedBoot, events: Path, hub_port: int, hub_python: str) -> TemplateSettings:
    """The template whose model server fails in this way."""
    script = f'{case.script}; date +%s.%N >> "{events / case.name}"; exit 1'
    return TemplateSettings(
        name=case.name,
        hash_id=case.name,
        env="-p 3000:3000",
        onstart="export MODEL_ROUTES=/work MODEL_PORT WORKER_PORT\n"
        f'export HF_ENDPOINT=http://127.0.0.1:{hub_port} HF_HOME="$PWD/hub" HUB_PYTHON="{hub_python}"\n'
        f"cat > model.sh <<'END'\n{script}\nEND\n"
        f'export MODEL_COMMAND="bash model.sh"\n"{sys.executable}" -m stoker_pyworker.presets http',
    )


@dataclass
class Seen:
    """When each view first showed the cause, Unix seconds."""

    at: dict[str, float] = field(default_factory=dict)
    client_error: str = ""
    machines: int = 0

    def note(self, view: str, text: str, cause: str) -> None:
        """Record that a view shows this text."""
        if cause in text:
            self.at.setdefault(view, time.time())


async def watch(seen: Seen, view: str, cause: str, read: Callable[[], object]) -> None:
    """Read a view again and again."""
    while view not in seen.at:
        with contextlib.suppress(stoker.StokerError, aiohttp.ClientError, TimeoutError):
            text = read()
            seen.note(view, str(await text if asyncio.iscoroutine(text) else text), cause)
        await asyncio.sleep(0.1)


async def ask(client: stoker.Serverless, name: str, seen: Seen, cause: str) -> None:
    """A client whose request waits for the worker that does not come."""
    endpoint = await client.get_endpoint(name)
    try:
        await endpoint.request(
            "/work",
            {"n": 1},
            cost=10.0,
            timeout=CLIENT_SECONDS,
            on_wait=lambda wait: seen.note("client, while it waits", wait.status, cause),
        )
    except stoker.StokerError as fault:
        seen.client_error = str(fault)


async def run(case: FailedBoot, client: stoker.Serverless, page_url: str, key: str, events: Path) -> bool:
    """Measure one case; whether all saw the cause."""
    made = await client.endpoints.create(
        case.name, min_load=10.0, min_workers=0, max_workers=2, cold_mult=1.0, max_queue_time=5.0
    )
    await client.workergroups.create(
        made.id, template_hash=case.name, search_params="gpu_name=CPU_L", gpu_ram=0.0
    )
    seen = Seen()
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        await (await http.post(f"{page_url}/sign-in", data={"key": key})).read()

        async def page() -> str:
            async with http.get(f"{page_url}/endpoints/{made.id}") as answer:
                return await answer.text()

        async def workers() -> str:
            rows = await client.endpoints.workers(made.id)
            return " ".join(str((row.model_extra or {}).get("error_msg")) for row in rows)

        async def decisions() -> str:
            lines = await client.endpoints.decisions(made.id, tail=100)
            return " ".join(line["reason"] for line in lines)

        views = {"`stoker workers`": workers, "`stoker decisions`": decisions, "dashboard": page}
        tasks = [asyncio.create_task(watch(seen, view, case.says, read)) for view, read in views.items()]
        asked = asyncio.create_task(ask(client, case.name, seen, case.says))
        _, late = await asyncio.wait(tasks, timeout=SECONDS_MAX)
        for task in late:
            task.cancel()
        await asked
        await asyncio.sleep(AFTER_SECONDS)
    lines = await client.endpoints.decisions(made.id, tail=200)
    seen.machines = sum(line["kind"] == "recruit" for line in lines)
    stamps = [float(line) for line in (events / case.name).read_text().split()]
    print_case(case, seen, stamps)
    await client.endpoints.delete(made.id)
    complete = not late and case.says in seen.client_error
    return complete and (seen.machines == 1 or not case.stops)


def print_case(case: FailedBoot, seen: Seen, stamps: list[float]) -> None:
    """The rows of one case."""
    for view, at in sorted(seen.at.items(), key=lambda each: each[1]):
        print(f"| {case.name} | {view} | {at - stamps[0]:.1f} s |", flush=True)
    print(f"| {case.name} | machines rented in {CLIENT_SECONDS + AFTER_SECONDS:.0f} s | {seen.machines} |")
    print(f"| {case.name} | client's error | {seen.client_error} |", flush=True)


async def main(names: list[str], hub_python: str) -> int:
    """All cases, or the named ones."""
    chosen = [case for case in CASES if not names or case.name in names]
    if len(chosen) < len(set(names)):
        sys.exit(f"cases: {', '.join(case.name for case in CASES)}")
    settings = load_settings(ROOT / "temporal-dev.yaml")
    with tempfile.TemporaryDirectory(prefix="stoker-boots-") as folder:
        events = Path(folder) / "events"
        events.mkdir()
        hub_port = free_port()
        hub = web.AppRunner(model_hub.app())
        await hub.setup()
        await web.TCPSite(hub, "127.0.0.1", hub_port).start()
        templates = tuple(template(case, events, hub_port, hub_python) for case in chosen)
        stack = DevStack(
            settings.model_copy(
                update={
                    "state_dir": Path(folder) / "state",
                    "temporal": settings.temporal.model_copy(
                        update={"port": free_port(), "ui_port": free_port()}
                    ),
                    "engine": settings.engine.model_copy(update={"port": free_port()}),
                    "dashboard": settings.dashboard.model_copy(update={"port": free_port()}),
                    "host_market": settings.host_market.model_copy(
                        update={"port": free_port(), "templates": templates}
                    ),
                }
            )
        )
        await stack.start()
        assert stack.keys is not None
        page_url = stack.settings.dashboard.url or ""
        print(facts())
        print("| boot | seen by | seconds after the first failure, or what |\n|---|---|---|", flush=True)
        try:
            key = stack.keys.account_key
            async with stoker.Serverless(key, url=stack.settings.engine.own_url) as client:
                good = [await run(case, client, page_url.rstrip("/"), key, events) for case in chosen]
        finally:
            await stack.stop()
            await hub.cleanup()
    return 0 if all(good) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--hub-python", required=True, help="Python that has the package huggingface_hub")
    parser.add_argument("names", nargs="*", metavar="case")
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.names, given.hub_python)))
