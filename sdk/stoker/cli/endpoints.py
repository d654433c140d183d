"""`stoker endpoints`: list, create, show, update, delete."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from stoker.cli.context import AsJson, EndpointArgument, Yes, confirm, run
from stoker.cli.fields import mapping, parameter_rows, status_rows, worker_counts
from stoker.cli.numbers import StrictGroup
from stoker.cli.output import (
    console,
    format_time,
    make_table,
    print_changes,
    print_json,
    print_notice,
    print_result,
    print_table,
    shorten,
)
from stoker.cli.parameters import ENDPOINT_OPTIONS, with_options
from stoker.client import Serverless
from stoker.errors import StokerError
from stoker.management.records import EndpointRecord

app = typer.Typer(
    cls=StrictGroup, no_args_is_help=True, help="Endpoints: how much capacity, at which queue time."
)

ShowKey = Annotated[bool, typer.Option("--show-key", help="Print the endpoint's routing key.")]

LIST_COLUMNS = ("id", "name", "state", "workers", "$/h", "last decision")
OVERVIEWS_AT_ONCE = 16
"""Endpoints whose status is read at the same time."""
DECISION_CHARACTERS_MAX = 120


@dataclass(frozen=True, slots=True)
class Overview:
    """An endpoint with its status and last decision, as far as the engine could read them."""

    record: EndpointRecord
    status: dict[str, Any]
    last_decision: str

    def row(self) -> list[Any]:
        """In the order of LIST_COLUMNS."""
        record = self.record
        state = "broken" if record.broken else record.endpoint_state
        workers = worker_counts(self.status) if "workers" in self.status else None
        dollars = self.status.get("dollars_per_hour")
        return [record.id, record.endpoint_name, state, workers, dollars, self.last_decision]


@app.command("list")
def list_(context: typer.Context, as_json: AsJson = False, show_key: ShowKey = False) -> None:
    """All endpoints of this account: state, workers, cost, last decision. Parameters: stoker endpoints show."""

    async def work(client: Serverless) -> list[Overview]:
        records = await client.endpoints.list()
        if as_json:
            return [Overview(record, {}, "") for record in records]
        slots = asyncio.Semaphore(OVERVIEWS_AT_ONCE)
        return await asyncio.gather(*(_overview(client, record, slots) for record in records))

    overviews = run(context, work)
    if as_json:
        print_json([each.record.as_json(show_key=show_key) for each in overviews])
        return
    columns = [*LIST_COLUMNS, *(["key"] if show_key else [])]
    rows = [[*each.row(), *([each.record.key] if show_key else [])] for each in overviews]
    print_table(columns, rows, empty="no endpoints; create one with: stoker endpoints create NAME")
    for each in overviews:
        if each.record.broken:
            print_notice(f"{each.record.endpoint_name}: {each.record.broken}")


async def _overview(client: Serverless, record: EndpointRecord, slots: asyncio.Semaphore) -> Overview:
    async with slots:
        try:
            status, decisions = await asyncio.gather(
                client.endpoints.status(record.id), client.endpoints.decisions(record.id, tail=1)
            )
        except StokerError as fault:
            return Overview(record, {}, shorten(f"not available: {fault}", DECISION_CHARACTERS_MAX))
    last = mapping(decisions[-1]) if decisions else {}
    decision = (
        f"{format_time(last.get('at'))} {last.get('kind', '')}: {last.get('reason', '')}" if last else "-"
    )
    return Overview(record, status, shorten(decision, DECISION_CHARACTERS_MAX))


@app.command()
@with_options(ENDPOINT_OPTIONS)
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Letters, digits, _ and -.")],
    given: dict[str, Any],
    as_json: AsJson = False,
) -> None:
    """Create an endpoint. Give it machines with: stoker workergroups create."""
    record = run(context, lambda client: client.endpoints.create(name, **given))
    print_result(
        record.as_json(), f"created endpoint {record.endpoint_name}, id {record.id}", as_json=as_json
    )


@app.command()
def show(
    context: typer.Context, endpoint: EndpointArgument, as_json: AsJson = False, show_key: ShowKey = False
) -> None:
    """One endpoint: its parameters and its present state."""

    async def work(client: Serverless) -> tuple[EndpointRecord, dict[str, Any]]:
        record = await client.endpoints.get(endpoint)
        return record, await client.endpoints.status(record.id)

    record, status = run(context, work)
    row = record.as_json(show_key=show_key)
    if as_json:
        print_json(row | {"status": status})
        return
    console().print(make_table(["parameter", "value"], parameter_rows(row)))
    console().print()
    console().print(make_table(["now", "value"], status_rows(status)))


@app.command()
@with_options(ENDPOINT_OPTIONS)
def update(
    context: typer.Context, endpoint: EndpointArgument, given: dict[str, Any], as_json: AsJson = False
) -> None:
    """Change parameters of a live endpoint; they take effect at once."""
    run(context, lambda client: client.endpoints.update(endpoint, **given))
    print_changes(f"endpoint {endpoint}", given, as_json=as_json)


@app.command()
def delete(
    context: typer.Context,
    endpoint: EndpointArgument,
    yes: Yes = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Terminate its workflow and destroy its instances without draining: for a workflow that is stuck.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete an endpoint with its workergroups: every worker is destroyed."""
    how = " without draining" if force else ""
    confirm(yes, f"Destroy every worker of endpoint {endpoint}{how}?")

    done = run(context, lambda client: client.endpoints.delete(endpoint, force=force))
    said = done.get("msg") or f"endpoint {endpoint} is being deleted; its workers are destroyed"
    print_result({"success": True} | done, str(said), as_json=as_json)


@app.command("rotate-key")
def rotate_key(
    context: typer.Context,
    endpoint: EndpointArgument,
    overlap: Annotated[
        float, typer.Option(min=0, max=86400, help="Seconds for which the old key stays valid.")
    ] = 0.0,
    as_json: AsJson = False,
    show_key: ShowKey = False,
) -> None:
    """Replace the endpoint's routing key; the old one becomes invalid."""
    key = run(context, lambda client: client.endpoints.rotate_key(endpoint, overlap_seconds=overlap))
    shown = key if show_key else "(hidden)"
    print_result(
        {"success": True, "api_key": shown}, f"endpoint {endpoint} has a new key: {shown}", as_json=as_json
    )
