"""`stoker watch`: an endpoint's state, updated live."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from stoker.cli.context import PATIENT_SECONDS_MAX, AsJson, EndpointArgument, run
from stoker.cli.fields import (
    DECISION_COLUMNS,
    decision_rows,
    describe,
    mapping,
    objects,
    queue_time,
    worker_counts,
    worker_table,
)
from stoker.cli.output import cell, frames, make_table, print_line
from stoker.client import Serverless
from stoker.management.records import WorkerRecord
from stoker_wire.parsing.escaping import escape_line

DECISIONS_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An endpoint at one moment."""

    status: dict[str, Any]
    workers: list[WorkerRecord]
    decisions: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """The JSON of `--json`."""
        return {
            "status": self.status,
            "workers": [worker.as_json() for worker in self.workers],
            "decisions": self.decisions,
        }


def watch(
    context: typer.Context,
    endpoint: EndpointArgument,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two updates.")] = 1.0,
    count: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many updates; else at Ctrl-C.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Load, capacity, workers and decisions, live. With --json: one object per line."""

    async def find(client: Serverless) -> int:
        return (await client.endpoints.get(endpoint)).id

    number = run(context, find)

    async def lines(client: Serverless) -> None:
        async for snapshot in _snapshots(client, number, interval, count):
            print_line(json.dumps(snapshot.as_json(), default=str))
            sys.stdout.flush()

    async def live(client: Serverless) -> None:
        with frames() as show:
            async for snapshot in _snapshots(client, number, interval, count):
                show(draw(endpoint, snapshot))

    run(context, lines if as_json else live, outage_seconds_max=PATIENT_SECONDS_MAX)


async def _snapshots(
    client: Serverless, number: int, interval: float, count: int | None
) -> AsyncIterator[Snapshot]:
    done = 0
    while True:
        status, workers, decisions = await asyncio.gather(
            client.endpoints.status(number),
            client.endpoints.workers(number),
            client.endpoints.decisions(number, tail=DECISIONS_SHOWN),
        )
        yield Snapshot(status, workers, decisions)
        done += 1
        if count is not None and done >= count:
            return
        await asyncio.sleep(interval)


def draw(endpoint: str, snapshot: Snapshot) -> RenderableType:
    """A snapshot as a screen."""
    return Group(
        Text(escape_line(_headline(endpoint, snapshot.status)), style="bold"),
        Text(""),
        make_table(*worker_table(snapshot.workers)) if snapshot.workers else Text("no workers", style="dim"),
        Text(""),
        make_table(DECISION_COLUMNS, decision_rows(snapshot.decisions)),
        *(Text(escape_line(f"waiting: {sentence}")) for sentence in _waits(snapshot.status)),
    )


def _headline(endpoint: str, status: dict[str, Any]) -> str:
    targets = mapping(status.get("targets"))
    queue = targets.get("queue_seconds")
    figures = {
        "load/s": status.get("load_per_second"),
        "hot": targets.get("hot_ready"),
        "wanted": targets.get("hot_wanted"),
        "queued": status.get("queued_requests"),
        "queue": None if queue is None else queue_time(queue),
        "$/h": status.get("dollars_per_hour"),
        "$": status.get("dollars"),
    }
    text = "  ".join(f"{name} {cell(value)}" for name, value in figures.items() if value is not None)
    if mapping(status.get("workers")):
        text += f"  workers {worker_counts(status)}"
    return f"{endpoint}: {status.get('state', '?')}  {text}"


def _waits(status: dict[str, Any]) -> list[str]:
    return [describe(wait) for wait in objects(status.get("waits"))]
