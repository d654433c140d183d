"""`stoker logs`, `decisions`, `costs`: an endpoint's log, decisions and dollars."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from stoker.cli.context import (
    PATIENT_SECONDS_MAX,
    AsJson,
    EndpointArgument,
    OptionalEndpointArgument,
    WorkergroupOption,
    complete_worker,
    one_of,
    run,
)
from stoker.cli.fields import DECISION_COLUMNS, decision_rows, describe, mapping, state_name
from stoker.cli.machines.log_times import lines_since, read_since
from stoker.cli.output import (
    console,
    format_time,
    make_table,
    print_json,
    print_lines,
    print_notice,
    print_table,
)
from stoker.client import Serverless
from stoker.management.records import Logs

FOLLOW_SECONDS = 2.0
"""Interval of --follow. Doubled: half the calls of the marketplace, and lines that appear later."""


def logs(
    context: typer.Context,
    endpoint: OptionalEndpointArgument = None,
    workergroup: WorkergroupOption = None,
    level: Annotated[int, typer.Option(min=0, max=3, help="Detail: 0 for operators … 3 everything.")] = 0,
    tail: Annotated[int | None, typer.Option(min=1, help="Only the last lines.")] = None,
    worker: Annotated[
        str | None,
        typer.Option(
            "--worker",
            "-w",
            help="The log of this worker's machine: its instance id or launch id.",
            autocompletion=complete_worker,
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new lines until Ctrl-C.")] = False,
    since: Annotated[
        str | None, typer.Option(help="Only lines since: 90s, 10m, 2h or 1d ago, or a time in UTC.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The decision log of an endpoint or workergroup; with --worker, the log of a machine, also after its end."""
    one_of(endpoint, workergroup)
    start = None if since is None else read_since(since, time.time())
    if worker is not None or follow:
        if endpoint is None or worker is None:
            raise typer.BadParameter("--worker needs ENDPOINT, and --follow needs --worker")
        _worker_log(context, endpoint, worker, tail=tail or 200, follow=follow, start=start, as_json=as_json)
        return

    async def work(client: Serverless) -> Logs:
        if workergroup is not None:
            return await client.workergroups.logs(workergroup, tail=tail)
        return await client.endpoints.logs(endpoint or "", tail=tail)

    found = run(context, work)
    if start is not None:
        found = Logs(**{level: _since(text, start) for level, text in found.as_json().items()})
    if as_json:
        print_json(found.as_json())
    else:
        print_lines(found.level(level))


def _worker_log(
    context: typer.Context,
    endpoint: str,
    worker: str,
    *,
    tail: int,
    follow: bool,
    start: float | None,
    as_json: bool,
) -> None:
    async def work(client: Serverless) -> None:
        number = (await client.endpoints.get(endpoint)).id
        shown: list[str] = []
        while True:
            found = await client.endpoints.worker_log(number, worker, tail=tail)
            if start is not None:
                found["log"] = _since(str(found.get("log") or ""), start)
            if as_json:
                print_json(found)
                return
            lines = str(found.get("log") or "").splitlines()
            print_lines("\n".join(new_lines(shown, lines)))
            if not found.get("live"):
                print_notice(
                    f"saved at {format_time(found.get('at'))} UTC, before it was rebooted or destroyed"
                )
                return
            if not follow:
                return
            shown = lines
            sys.stdout.flush()
            await asyncio.sleep(FOLLOW_SECONDS)

    run(context, work, outage_seconds_max=PATIENT_SECONDS_MAX if follow else None)


def _since(text: str, start: float) -> str:
    return "".join(f"{line}\n" for line in lines_since(text.splitlines(), start))


def new_lines(shown: list[str], found: list[str]) -> list[str]:
    """The lines of `found` that follow those already shown: both are the end of one growing log."""
    for overlap in range(min(len(shown), len(found)), 0, -1):
        if shown[-overlap:] == found[:overlap]:
            return found[overlap:]
    return found


def decisions(
    context: typer.Context,
    endpoint: EndpointArgument,
    tail: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """The last decisions, each with its reason."""
    lines = run(context, lambda client: client.endpoints.decisions(endpoint, tail=tail))
    if as_json:
        print_json(lines)
    else:
        print_table(DECISION_COLUMNS, decision_rows(lines), empty="no decisions yet")


def costs(context: typer.Context, endpoint: EndpointArgument, as_json: AsJson = False) -> None:
    """An endpoint's costs: dollars by worker state, and dollars per hour by worker."""
    found = run(context, lambda client: client.endpoints.costs(endpoint))
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
    spent = [[state_name(state), dollars] for state, dollars in mapping(costs.get("by_state")).items()]
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
