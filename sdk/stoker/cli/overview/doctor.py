"""`stoker doctor`: checks of the deployment as a client sees it. Every finding has its remedy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import typer
from rich.text import Text

from stoker.cli.context import AsJson, run
from stoker.cli.output import console, print_json
from stoker.client import Serverless
from stoker.errors import StokerError
from stoker.transport import version
from stoker_wire.parsing.escaping import escape_line

SKEW_SECONDS_MAX = 5.0
"""Clock difference from which tickets and reports begin to be refused or to count as old."""
CONNECT_SECONDS_MAX = 5.0
WORKERS_TRIED_MAX = 20
_REMEDIES = {
    "stuck": "its workflow makes no progress: see `stoker endpoints show`, and the how-to on operation",
    "waiting": "requests wait for a worker: see `stoker decisions`",
    "late": "the queue is over its target: raise max_workers, or see `stoker decisions`",
    "degraded": "a worker has an error: see `stoker workers` and `stoker logs`",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check."""

    check: str
    ok: bool
    found: str
    remedy: str = ""
    """Empty if the check passed."""


def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Check engine, key, clocks, marketplace, endpoints and workers. Exit code 1 if a check failed."""

    async def work(client: Serverless) -> list[Finding]:
        return [finding async for finding in check(client)]

    findings = run(context, work)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            _show(finding)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _show(finding: Finding) -> None:
    terminal = console()
    mark, style = ("ok  ", "green") if finding.ok else ("FAIL", "bold red")
    terminal.print(
        Text.assemble((mark, style), " ", escape_line(f"{finding.check}: {finding.found}")), soft_wrap=True
    )
    if finding.remedy:
        terminal.print(Text(escape_line(f"     {finding.remedy}")), soft_wrap=True)


async def check(client: Serverless) -> AsyncIterator[Finding]:
    """The findings in the order of the checks. A check without which the next ones mean nothing ends them."""
    began = time.time()
    try:
        overview = await client.endpoints.overview()
    except StokerError as fault:
        yield Finding(
            "engine and key",
            False,
            str(fault),
            "is STOKER_URL the engine's address and STOKER_API_KEY the account key (`stokerd key`)?",
        )
        return
    yield Finding("engine and key", True, f"{client.url} answers and accepts the key")
    yield _clock(overview, began, time.time())
    yield _version(overview)
    reason = str(overview.get("not_ready") or "")
    yield Finding(
        "Temporal",
        not reason,
        reason or "the engine reads the endpoints",
        "start the Temporal server and a Temporal worker (`stokerd worker`)" if reason else "",
    )
    yield await _market(client)
    for row in overview["endpoints"]:
        health = str(row.get("health"))
        yield Finding(
            f"endpoint {row.get('name')}",
            health not in _REMEDIES,
            health
            + (
                f": {row['fault'] or row['wait_reason']}"
                if row.get("fault") or row.get("wait_reason")
                else ""
            ),
            _REMEDIES.get(health, ""),
        )
    async for finding in _workers(client, overview["endpoints"]):
        yield finding


def _clock(overview: dict[str, Any], before: float, after: float) -> Finding:
    """The engine's time lies between the two readings of this machine's clock, but for their difference."""
    at = float(overview.get("at") or 0.0)
    skew = at - after if at > after else at - before if at < before else 0.0
    ok = abs(skew) <= SKEW_SECONDS_MAX
    return Finding(
        "clocks",
        ok,
        f"the engine's clock differs from this machine's by {abs(skew):.1f} s",
        "" if ok else "synchronise the clocks of both machines (NTP)",
    )


def _version(overview: dict[str, Any]) -> Finding:
    theirs, ours = str(overview.get("version") or "unknown"), version()
    ok = theirs.split(".")[:2] == ours.split(".")[:2]
    return Finding(
        "versions",
        ok,
        f"engine {theirs}, this client {ours}",
        "" if ok else "install the client and the engine from the same minor version",
    )


async def _market(client: Serverless) -> Finding:
    try:
        await client.marketplace.offers()
    except StokerError as fault:
        return Finding(
            "marketplace",
            False,
            str(fault),
            "check the deployment's market key and market.url, and that the marketplace runs",
        )
    return Finding("marketplace", True, "answers a search")


async def _workers(client: Serverless, endpoints: list[dict[str, Any]]) -> AsyncIterator[Finding]:
    """Whether this machine reaches the ready workers: clients talk to them directly."""
    tried = 0
    for row in endpoints:
        for worker in await client.endpoints.workers(row["id"]):
            if worker.status != "idle" or not worker.url or tried >= WORKERS_TRIED_MAX:
                continue
            tried += 1
            fault = await _connect(worker.url)
            yield Finding(
                f"worker {worker.id}",
                not fault,
                fault or f"{worker.url} is reachable from here",
                ""
                if not fault
                else "open the worker's port to clients, or use the engine's OpenAI API instead",
            )


async def _connect(url: str) -> str:
    """Why no connection could be made; empty: one could."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (OSError, TimeoutError) as fault:
        return f"{url} cannot be reached from here: {fault or 'no answer in time'}"
    writer.close()
    return ""
