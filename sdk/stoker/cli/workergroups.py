"""`stoker workergroups`: list, create, show, update, delete, roll."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stoker.cli.context import AsJson, EndpointArgument, EndpointOption, run
from stoker.cli.fields import parameter_rows
from stoker.cli.numbers import StrictGroup
from stoker.cli.output import console, make_table, print_json, print_line, print_notice, print_table
from stoker.cli.parameters import WORKERGROUP_OPTIONS, with_options
from stoker.client import Serverless
from stoker.management.records import WorkergroupRecord

app = typer.Typer(
    cls=StrictGroup, no_args_is_help=True, help="Workergroups: which template, on which machines."
)

Number = Annotated[int, typer.Argument(metavar="WORKERGROUP", help="Id of the workergroup.")]


@app.command("list")
def list_(context: typer.Context, endpoint: EndpointOption = None, as_json: AsJson = False) -> None:
    """All workergroups, or those of one endpoint."""

    async def work(client: Serverless) -> list[WorkergroupRecord]:
        return await client.workergroups.list(endpoint=endpoint)

    records = run(context, work)
    if as_json:
        print_json([record.as_json() for record in records])
        return
    rows = [
        [
            record.id,
            record.endpoint_name or record.endpoint_id,
            record.template_hash or record.template_id,
            record.search_params,
            record.launch_args,
        ]
        for record in records
    ]
    print_table(
        ["id", "endpoint", "template", "search", "launch args"],
        rows,
        empty="no workergroups; create one with: stoker workergroups create ENDPOINT --template-hash …",
    )


@app.command()
@with_options(WORKERGROUP_OPTIONS)
def create(
    context: typer.Context, endpoint: EndpointArgument, given: dict[str, Any], as_json: AsJson = False
) -> None:
    """Add machines to an endpoint: a template, and the offers that may run it."""

    async def work(client: Serverless) -> WorkergroupRecord:
        return await client.workergroups.create(endpoint, **given)

    record = run(context, work)
    if as_json:
        print_json(record.as_json())
    else:
        print_line(f"created workergroup {record.id} of endpoint {endpoint}")
        if record.warning:
            print_notice(f"warning: {record.warning}")


@app.command()
def show(context: typer.Context, workergroup: Number, as_json: AsJson = False) -> None:
    """One workergroup."""

    async def work(client: Serverless) -> WorkergroupRecord:
        return await client.workergroups.get(workergroup)

    row = run(context, work).as_json()
    if as_json:
        print_json(row)
    else:
        console().print(make_table(["parameter", "value"], parameter_rows(row)))


@app.command()
@with_options(WORKERGROUP_OPTIONS)
def update(
    context: typer.Context, workergroup: Number, given: dict[str, Any], as_json: AsJson = False
) -> None:
    """Change a workergroup; a new template or search starts a rolling update."""

    async def work(client: Serverless) -> None:
        await client.workergroups.update(workergroup, **given)

    run(context, work)
    if as_json:
        print_json({"success": True, "changed": given})
    else:
        changes = ", ".join(f"{name}={value}" for name, value in given.items())
        print_line(f"workergroup {workergroup}: {changes}")


@app.command()
def delete(
    context: typer.Context,
    workergroup: Number,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a workergroup; its workers finish their requests and are destroyed."""
    if not yes:
        typer.confirm(f"Destroy every worker of workergroup {workergroup}?", abort=True, err=True)

    async def work(client: Serverless) -> None:
        await client.workergroups.delete(workergroup)

    run(context, work)
    if as_json:
        print_json({"success": True})
    else:
        print_line(f"workergroup {workergroup} is being deleted")


@app.command()
def roll(
    context: typer.Context,
    workergroup: Number,
    cancel: Annotated[bool, typer.Option("--cancel", help="Stop a rolling update.")] = False,
    as_json: AsJson = False,
) -> None:
    """Update every worker to the present template, without dropping a request."""

    async def work(client: Serverless) -> int:
        return await client.workergroups.update_workers(workergroup, cancel=cancel)

    count = run(context, work)
    if as_json:
        print_json({"success": True, "cancelled": cancel, "workers_to_update": count})
    elif cancel:
        print_line(f"workergroup {workergroup}: the rolling update is cancelled")
    else:
        print_line(f"workergroup {workergroup}: {count} workers to update")
