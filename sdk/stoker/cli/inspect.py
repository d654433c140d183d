"""`stoker workers`, `logs`, `decisions`, `costs`: an endpoint's workers, log, decisions and dollars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from stoker.cli.context import ENDPOINT_HELP, AsJson, EndpointArgument, WorkergroupOption, run
from stoker.cli.fields import DECISION_COLUMNS, WORKER_COLUMNS, decision_rows, describe, mapping, worker_rows
from stoker.cli.output import console, make_table, print_json, print_lines, print_table
from stoker.client import Serverless
from stoker.management.records import Logs, WorkerRecord


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
    level: Annotated[int, typer.Option(min=0, max=3, help="Detail: 0 for operators … 3 everything.")] = 0,
    tail: Annotated[int | None, typer.Option(min=1, help="Only the last lines.")] = None,
    as_json: AsJson = False,
) -> None:
    """The log of an endpoint, or of a workergroup."""
    _one_of(endpoint, workergroup)

    async def work(client: Serverless) -> Logs:
        if workergroup is not None:
            return await client.workergroups.logs(workergroup, tail=tail)
        return await client.endpoints.logs(endpoint or "", tail=tail)

    found = run(context, work)
    if as_json:
        print_json(found.as_json())
    else:
        print_lines(found.level(level))


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
        print_table(DECISION_COLUMNS, decision_rows(lines), empty="no decisions yet")


def costs(context: typer.Context, endpoint: EndpointArgument, as_json: AsJson = False) -> None:
    """An endpoint's costs: dollars by worker state, and dollars per hour by worker."""

    async def work(client: Serverless) -> dict[str, Any]:
        return await client.endpoints.costs(endpoint)

    found = run(context, work)
    if as_json:
        print_json(found)
        return
    spent, now, others = _cost_rows(found)
    console().print(make_table(["spent", "dollars"], spent))
    console().print()
    console().print(make_table(["now", "$/h"], now))
    if others:
        console().print()
        console().print(make_table(["other", "value"], others))


def _cost_rows(costs: Mapping[str, Any]) -> tuple[list[list[Any]], list[list[Any]], list[list[Any]]]:
    """Rows in dollars, rows in dollars per hour, and the other fields."""
    spent = [[state, dollars] for state, dollars in mapping(costs.get("by_state")).items()]
    if costs.get("difference"):
        spent.append(["billed beyond that by the marketplace", costs["difference"]])
    spent.append(["total", costs.get("dollars")])
    now = [[f"worker {launch}", dollars] for launch, dollars in mapping(costs.get("by_worker")).items()]
    now.append(["total", costs.get("dollars_per_hour")])
    names = {"settled_at": "bills last read", "counted_until": "counted until"}
    shown = {"success", "by_state", "by_worker", "difference", "dollars", "dollars_per_hour"}
    others = []
    for name, value in costs.items():
        if name not in shown:
            is_time = name in names
            others.append(
                [names.get(name, name.replace("_", " ")), describe(value, "at" if is_time else name)]
            )
    return spent, now, others
