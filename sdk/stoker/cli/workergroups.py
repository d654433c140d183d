"""`stoker workergroups`: list, create, show, update, delete, roll."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stoker.cli.context import AsJson, EndpointArgument, EndpointOption, Yes, confirm, run
from stoker.cli.fields import parameter_rows
from stoker.cli.numbers import StrictGroup
from stoker.cli.output import (
    console,
    make_table,
    print_changes,
    print_json,
    print_line,
    print_notice,
    print_result,
    print_table,
)
from stoker.cli.parameters import WORKERGROUP_OPTIONS, with_options

app = typer.Typer(
    cls=StrictGroup, no_args_is_help=True, help="Workergroups: which template, on which machines."
)

Number = Annotated[int, typer.Argument(metavar="WORKERGROUP", help="Id of the workergroup.")]


@app.command("list")
def list_(context: typer.Context, endpoint: EndpointOption = None, as_json: AsJson = False) -> None:
    """All workergroups, or those of one endpoint."""
    records = run(context, lambda client: client.workergroups.list(endpoint=endpoint))
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
    record = run(context, lambda client: client.workergroups.create(endpoint, **given))
    if as_json:
        print_json(record.as_json())
    else:
        print_line(f"created workergroup {record.id} of endpoint {endpoint}")
        if record.warning:
            print_notice(f"warning: {record.warning}")


@app.command()
def show(context: typer.Context, workergroup: Number, as_json: AsJson = False) -> None:
    """One workergroup."""
    row = run(context, lambda client: client.workergroups.get(workergroup)).as_json()
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
    run(context, lambda client: client.workergroups.update(workergroup, **given))
    print_changes(f"workergroup {workergroup}", given, as_json=as_json)


@app.command()
def delete(
    context: typer.Context,
    workergroup: Number,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete a workergroup; its workers finish their requests and are destroyed."""
    confirm(yes, f"Destroy every worker of workergroup {workergroup}?")

    run(context, lambda client: client.workergroups.delete(workergroup))
    print_result({"success": True}, f"workergroup {workergroup} is being deleted", as_json=as_json)


@app.command()
def roll(
    context: typer.Context,
    workergroup: Number,
    cancel: Annotated[bool, typer.Option("--cancel", help="Stop a rolling update.")] = False,
    as_json: AsJson = False,
) -> None:
    """Update every worker to the present template, without dropping a request."""
    count = run(context, lambda client: client.workergroups.update_workers(workergroup, cancel=cancel))
    said = "the rolling update is cancelled" if cancel else f"{count} workers to update"
    done = {"success": True, "cancelled": cancel, "workers_to_update": count}
    print_result(done, f"workergroup {workergroup}: {said}", as_json=as_json)
