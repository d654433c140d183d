"""`stoker doctor`: checks of the deployment as a client sees it. Every finding has its remedy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import typer

from stoker.cli.context import AsJson, run
from stoker.cli.overview.addresses import connection_fault, host_and_port, resolve
from stoker.cli.overview.findings import Check, Finding, found, report, run_checks
from stoker.client import Serverless
from stoker.errors import StokerError
from stoker.transport import version

SKEW_SECONDS_MAX = 5.0
"""Clock difference from which tickets and reports begin to be refused or to count as old."""
WORKERS_TRIED_MAX = 20
_ENGINE_REMEDY = "is STOKER_URL the engine's address and STOKER_API_KEY the account key (`stokerd key`)?"
_MARKET_REMEDY = "check the deployment's market key and market.url, and that the marketplace runs"
_WORKERS_REMEDY = "open the worker's port to clients, or use the engine's OpenAI API instead"
_HEALTH_REMEDIES = {
    "stuck": "its workflow makes no progress: see `stoker endpoints show`, and the how-to on operation",
    "waiting": "requests wait for a worker: see `stoker decisions`",
    "late": "the queue is over its target: raise max_workers, or see `stoker decisions`",
    "degraded": "a worker has an error or its starts fail: see `stoker workers` and `stoker logs`",
}


def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Check engine, key, clocks, marketplace, endpoints and workers. Exit code 1 if a check failed."""
    run(context, lambda client: report(check(client), as_json=as_json), outage_seconds_max=0.0)


async def check(client: Serverless) -> AsyncIterator[Finding]:
    """The findings in the order of the checks. Without an answer of the engine the others mean nothing."""
    overviews: list[dict[str, Any]] = []

    async def engine() -> AsyncIterator[Finding]:
        try:
            await resolve(host_and_port(client.url)[0])
            began = time.time()
            overview = await client.endpoints.overview()
        except StokerError as fault:
            yield Finding("engine and key", "failed", str(fault), _ENGINE_REMEDY)
            return
        except OSError as fault:
            reason = fault.strerror or "no answer of the resolver"
            yield Finding(
                "engine and key", "failed", f"{client.url} does not resolve: {reason}", _ENGINE_REMEDY
            )
            return
        overviews.append(overview)
        yield Finding("engine and key", "ok", f"{client.url} answers and accepts the key")
        yield clock_finding("clocks", "the engine's clock", overview.get("at"), began, time.time())
        yield version_finding(overview.get("version"), version(), "this client")
        reason = str(overview.get("not_ready") or "")
        remedy = "start the Temporal server and a Temporal worker (`stokerd worker`)"
        yield found("Temporal", reason, "the engine reads the endpoints", remedy)

    async for finding in run_checks([Check("engine and key", engine, _ENGINE_REMEDY)]):
        yield finding
    for overview in overviews:
        rows = overview["endpoints"]
        rest = [
            Check("marketplace", partial(_market, client), _MARKET_REMEDY),
            Check("endpoints", partial(_endpoints, rows), ""),
            Check("workers", partial(_workers, client, rows), _WORKERS_REMEDY),
        ]
        async for finding in run_checks(rest):
            yield finding


def clock_finding(name: str, whose: str, at: Any, before: float, after: float) -> Finding:
    """Whether a clock that showed `at` lies between two readings of this machine's, but for a small difference."""
    if not isinstance(at, int | float) or at <= 0:
        return Finding(name, "unknown", f"{whose} was not told", "update the other side to this version")
    skew = at - after if at > after else at - before if at < before else 0.0
    fault = f"{whose} is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    remedy = "synchronise the clocks of both machines (NTP)"
    ok = f"{whose} differs from this machine's by {abs(skew):.1f} s"
    return found(name, fault if abs(skew) > SKEW_SECONDS_MAX else "", ok, remedy)


def version_finding(theirs: Any, ours: str, whose: str) -> Finding:
    """Whether the engine and the other part have the same minor version."""
    text = f"engine {theirs or 'unknown'}, {whose} {ours}"
    differ = str(theirs).split(".")[:2] != ours.split(".")[:2]
    return found(
        "versions",
        text if differ else "",
        text,
        "install the client and the engine from the same minor version",
    )


async def _market(client: Serverless) -> AsyncIterator[Finding]:
    try:
        await client.marketplace.offers()
    except StokerError as fault:
        yield Finding("marketplace", "failed", str(fault), _MARKET_REMEDY)
        return
    yield Finding("marketplace", "ok", "answers a search")


async def _endpoints(rows: list[dict[str, Any]]) -> AsyncIterator[Finding]:
    for row in rows:
        health, reason = str(row.get("health")), row.get("fault") or row.get("wait_reason")
        text = f"{health}: {reason}" if reason else health
        remedy = _HEALTH_REMEDIES.get(health, "")
        yield found(f"endpoint {row.get('name')}", text if remedy else "", text, remedy)


async def _workers(client: Serverless, rows: list[dict[str, Any]]) -> AsyncIterator[Finding]:
    """Whether this machine reaches the ready workers: clients talk to them directly."""
    listed = await asyncio.gather(
        *(client.endpoints.workers(row["id"]) for row in rows), return_exceptions=True
    )
    ready = [
        worker
        for workers in listed
        if not isinstance(workers, BaseException)
        for worker in workers
        if worker.status == "idle" and worker.url
    ][:WORKERS_TRIED_MAX]
    faults = await asyncio.gather(*(connection_fault(worker.url or "") for worker in ready))
    for worker, fault in zip(ready, faults, strict=True):
        yield found(f"worker {worker.id}", fault, f"{worker.url} is reachable from here", _WORKERS_REMEDY)
