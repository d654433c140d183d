"""`stoker status` and `stoker top`: all endpoints on one screen."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from stoker.cli.context import PATIENT_SECONDS_MAX, AsJson, run
from stoker.cli.fields import mapping
from stoker.cli.output import (
    console,
    format_seconds,
    frames,
    make_table,
    print_json,
    print_line,
    print_notice,
    shorten,
)
from stoker.client import Serverless
from stoker.errors import StokerError
from stoker_wire.parsing.escaping import escape_line

DECISIONS_OF_MAX = 20
"""With more endpoints than this, the last decisions are not asked for: each is a query of a workflow."""
_REASON_CHARACTERS_MAX = 90

COLUMNS = (
    "endpoint",
    "health",
    "load/s",
    "hot load/s",
    "hot",
    "booting",
    "cold",
    "queue",
    "oldest",
    "GPU $/h",
)


def status(context: typer.Context, as_json: AsJson = False) -> None:
    """All endpoints: health in a word, load, workers, queue, dollars, and the last decision of each."""
    overview, decisions = run(context, _status)
    if as_json:
        print_json({**overview, "last_decisions": decisions})
        return
    if not overview["endpoints"]:
        print_notice("no endpoints; create one: stoker endpoints create NAME")
        return
    console().print(draw(overview, decisions))


def top(
    context: typer.Context,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two updates.")] = 2.0,
    count: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many updates; else at Ctrl-C.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """All endpoints, live. With --json: one object per line."""

    first = run(context, _overview)

    async def live(client: Serverless) -> None:
        overview, done = first, 1
        shown: AbstractContextManager[Callable[[Any], None]] = (
            nullcontext(_show_json) if as_json else frames()
        )
        with shown as show:
            while True:
                show(overview if as_json else draw(overview, {}))
                if count is not None and done >= count:
                    return
                await asyncio.sleep(interval)
                overview, done = await client.endpoints.overview(), done + 1

    run(context, live, outage_seconds_max=PATIENT_SECONDS_MAX)


def _show_json(overview: Any) -> None:
    print_line(json.dumps(overview))
    sys.stdout.flush()


async def _overview(client: Serverless) -> dict[str, Any]:
    return await client.endpoints.overview()


async def _status(client: Serverless) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    overview = await client.endpoints.overview()
    endpoints = overview["endpoints"]
    if len(endpoints) > DECISIONS_OF_MAX:
        return overview, {}

    async def last(number: int) -> dict[str, Any]:
        try:
            found = await client.endpoints.decisions(number, tail=1)
        except StokerError:  # an endpoint that cannot answer is in the table with its health
            return {}
        return found[-1] if found else {}

    decisions = await asyncio.gather(*(last(row["id"]) for row in endpoints))
    return overview, {row["name"]: line for row, line in zip(endpoints, decisions, strict=True) if line}


def draw(overview: dict[str, Any], decisions: dict[str, dict[str, Any]]) -> RenderableType:
    """The screen: a table, then what is wrong and the last decision of each endpoint."""
    endpoints = overview["endpoints"]
    lines = [Text(escape_line(f"{row['name']}: {fault}")) for row in endpoints if (fault := _fault(row))]
    lines += [
        Text(escape_line(f"{name}: {_decision(line)}"), style="dim") for name, line in decisions.items()
    ]
    if overview.get("not_ready"):
        lines.insert(0, Text(escape_line(f"engine: {overview['not_ready']}"), style="bold"))
    return Group(make_table(COLUMNS, map(_row, endpoints)), *([Text("")] if lines else []), *lines)


def _row(row: dict[str, Any]) -> list[Any]:
    stages, capacity = mapping(row.get("stages")), mapping(row.get("capacity"))
    dollars = mapping(row.get("dollars_per_hour"))
    return [
        row.get("name"),
        row.get("health"),
        round(row.get("load_per_second", 0.0), 2),
        round(capacity.get("hot", 0.0), 2),
        *(stages.get(stage, 0) for stage in ("hot", "booting", "cold")),
        row.get("queue_requests"),
        format_seconds(row.get("queue_oldest_s")) if row.get("queue_requests") else "",
        round(sum(dollars.values()), 4),
    ]


def _fault(row: dict[str, Any]) -> str:
    if row.get("fault"):
        return str(row["fault"])
    told = row.get("queue_requests") or row.get("health") == "degraded"
    return f"waiting: {row['wait_reason']}" if told and row.get("wait_reason") else ""


def _decision(line: dict[str, Any]) -> str:
    subject = f" {line['subject']}" if line.get("subject") else ""
    return shorten(f"{line.get('kind', '')}{subject}: {line.get('reason', '')}", _REASON_CHARACTERS_MAX)
