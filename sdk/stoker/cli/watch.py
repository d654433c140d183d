"""`stoker watch`: an endpoint, live."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from stoker.cli.context import AsJson, EndpointArgument, run
from stoker.cli.inspect import WORKER_COLUMNS, clock, decision_rows, worker_rows
from stoker.cli.output import cell, console, make_table, say
from stoker.client import Serverless
from stoker.management.records import WorkerRecord
from stoker_wire.parsing.escaping import escape_line

DECISIONS_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found."""

    status: dict[str, Any]
    workers: list[WorkerRecord]
    decisions: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "status": self.status,
            "workers": [worker.as_json() for worker in self.workers],
            "decisions": self.decisions,
        }


def watch(
    context: typer.Context,
    endpoint: EndpointArgument,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 1.0,
    count: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many looks; else at Ctrl-C.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Load, capacity, workers and decisions, live. With --json: one object per line and look."""

    async def lines(client: Serverless) -> None:
        async for look in _looks(client, endpoint, interval, count):
            say(json.dumps(look.as_json(), default=str))
            sys.stdout.flush()

    async def live(client: Serverless) -> None:
        with Live(console=console(), auto_refresh=False) as screen:
            async for look in _looks(client, endpoint, interval, count):
                screen.update(draw(endpoint, look), refresh=True)

    run(context, lines if as_json else live, patient=True)


async def _looks(
    client: Serverless, endpoint: str, interval: float, count: int | None
) -> AsyncIterator[Look]:
    number = (await client.endpoints.get(endpoint)).id
    done = 0
    while True:
        status, workers, decisions = await asyncio.gather(
            client.endpoints.status(number),
            client.endpoints.workers(number),
            client.endpoints.decisions(number, tail=DECISIONS_SHOWN),
        )
        yield Look(status, workers, decisions)
        done += 1
        if count is not None and done >= count:
            return
        await asyncio.sleep(interval)


def draw(endpoint: str, look: Look) -> RenderableType:
    """One look as a screen."""
    return Group(
        Text(escape_line(_headline(endpoint, look.status)), style="bold"),
        Text(""),
        make_table(WORKER_COLUMNS, worker_rows(look.workers))
        if look.workers
        else Text("no workers", style="dim"),
        Text(""),
        make_table(["at (UTC)", "what", "about", "why"], decision_rows(look.decisions)),
        *(Text(escape_line(f"waits: {sentence}")) for sentence in _waits(look.status)),
    )


def _headline(endpoint: str, status: dict[str, Any]) -> str:
    targets = status.get("targets")
    targets = targets if isinstance(targets, dict) else {}
    figures = {
        "load/s": status.get("load_per_second"),
        "hot": targets.get("hot_ready"),
        "wanted": targets.get("hot_wanted"),
        "queued": status.get("queued_requests"),
        "queue s": targets.get("queue_seconds"),
        "$/h": status.get("dollars_per_hour"),
        "$": status.get("dollars"),
    }
    said = "  ".join(f"{name} {cell(value)}" for name, value in figures.items() if value is not None)
    counts = status.get("workers")
    if isinstance(counts, dict) and counts:
        said += "  workers " + " ".join(f"{name} {number}" for name, number in counts.items())
    return f"{endpoint}: {status.get('state', '?')}  {said}"


def _waits(status: dict[str, Any]) -> list[str]:
    waits = status.get("waits")
    if not isinstance(waits, list):
        return []
    return [
        f"{wait.get('reason', '')}" + (f" (until {clock(wait['until'])})" if wait.get("until") else "")
        for wait in waits
        if isinstance(wait, dict)
    ]
