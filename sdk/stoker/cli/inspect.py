"""`stoker workers`, `logs`, `decisions`, `costs`: what an endpoint has, does, and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from stoker.cli.context import ENDPOINT_HELP, AsJson, EndpointArgument, WorkergroupOption, run
from stoker.cli.output import console, make_table, print_json, print_table, say_lines
from stoker.client import Serverless
from stoker.management.records import Logs, WorkerRecord

WORKER_COLUMNS = ("id", "status", "gpu", "load", "perf", "measured", "working", "$/h", "url")


def worker_rows(workers: Sequence[WorkerRecord]) -> list[list[Any]]:
    """One row per worker, in the order of WORKER_COLUMNS."""
    return [
        [
            worker.id,
            worker.status,
            worker.gpu_name,
            worker.cur_load,
            worker.perf,
            worker.measured_perf,
            worker.reqs_working,
            worker.dph_total,
            worker.url,
        ]
        for worker in workers
    ]


def decision_rows(decisions: Sequence[dict[str, Any]]) -> list[list[str]]:
    """When, what, about whom, why."""
    return [
        [
            clock(line.get("at")),
            str(line.get("kind", "")),
            str(line.get("subject", "")),
            str(line.get("reason", "")),
        ]
        for line in decisions
    ]


def clock(unix: Any) -> str:
    """Unix seconds as UTC; what is none, or in no year that there is, is a dash."""
    if not isinstance(unix, int | float):
        return "-"
    try:
        return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "-"


def _one_of(endpoint: str | None, workergroup: int | None) -> None:
    if (endpoint is None) == (workergroup is None):
        raise typer.BadParameter("give either ENDPOINT or --workergroup ID")


def workers(
    context: typer.Context,
    endpoint: Annotated[str | None, typer.Argument(help=ENDPOINT_HELP)] = None,
    workergroup: WorkergroupOption = None,
    as_json: AsJson = False,
) -> None:
    """The workers of an endpoint, or of a workergroup."""
    _one_of(endpoint, workergroup)

    async def work(client: Serverless) -> list[WorkerRecord]:
        if workergroup is not None:
            return await client.workergroups.workers(workergroup)
        return await client.endpoints.workers(endpoint or "")

    records = run(context, work)
    if as_json:
        print_json([record.as_json() for record in records])
    else:
        print_table(WORKER_COLUMNS, worker_rows(records), empty="no workers")


def logs(
    context: typer.Context,
    endpoint: Annotated[str | None, typer.Argument(help=ENDPOINT_HELP)] = None,
    workergroup: WorkergroupOption = None,
    level: Annotated[int, typer.Option(min=0, max=3, help="0: what an operator wants … 3: everything.")] = 0,
    tail: Annotated[int | None, typer.Option(min=1, help="Only the last lines.")] = None,
    as_json: AsJson = False,
) -> None:
    """The log of an endpoint, or of a workergroup."""
    _one_of(endpoint, workergroup)

    async def work(client: Serverless) -> Logs:
        if workergroup is not None:
            return await client.workergroups.logs(workergroup, tail=tail)
        return await client.endpoints.logs(endpoint or "", tail=tail)

    said = run(context, work)
    if as_json:
        print_json(said.as_json())
    else:
        text = said.level(level)
        say_lines(text)


def decisions(
    context: typer.Context,
    endpoint: EndpointArgument,
    tail: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """The last decisions, each with its reason."""

    async def work(client: Serverless) -> list[dict[str, Any]]:
        return await client.endpoints.decisions(endpoint, tail=tail)

    lines = run(context, work)
    if as_json:
        print_json(lines)
    else:
        print_table(["at (UTC)", "what", "about", "why"], decision_rows(lines), empty="no decisions yet")


def costs(context: typer.Context, endpoint: EndpointArgument, as_json: AsJson = False) -> None:
    """What an endpoint has cost and costs, in dollars."""

    async def work(client: Serverless) -> dict[str, Any]:
        return await client.endpoints.costs(endpoint)

    said = run(context, work)
    if as_json:
        print_json(said)
    else:
        console().print(make_table(["what", "dollars"], _flat(said)))


def _flat(said: dict[str, Any], prefix: str = "") -> list[list[Any]]:
    """Nested figures as one list."""
    rows: list[list[Any]] = []
    for name, value in said.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        elif name != "success":
            rows.append([f"{prefix}{name}", value])
    return rows
