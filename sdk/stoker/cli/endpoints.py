"""`stoker endpoints`: list, create, show, update, delete."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stoker.cli.context import AsJson, EndpointArgument, run
from stoker.cli.output import console, make_table, print_json, print_table, say, tell
from stoker.cli.parameters import OfEndpoint, takes
from stoker.client import Serverless
from stoker.management.records import EndpointRecord

app = typer.Typer(no_args_is_help=True, help="Endpoints: how much capacity, at which queue time.")

ShowKey = Annotated[bool, typer.Option("--show-key", help="Print the endpoint's routing key in clear.")]

_SHOWN = (
    "max_workers",
    "min_workers",
    "min_load",
    "target_util",
    "cold_mult",
    "min_cold_load",
    "inactivity_timeout",
    "max_queue_time",
    "target_queue_time",
)


@app.command("list")
def list_(context: typer.Context, as_json: AsJson = False, show_key: ShowKey = False) -> None:
    """All endpoints of this account."""

    async def work(client: Serverless) -> list[EndpointRecord]:
        return await client.endpoints.list()

    records = run(context, work)
    if as_json:
        print_json([record.as_json(show_key=show_key) for record in records])
        return
    columns = ["id", "name", "state", *_SHOWN, *(["key"] if show_key else [])]
    rows = [
        [
            record.id,
            record.endpoint_name,
            "broken" if record.broken else record.endpoint_state,
            *(getattr(record, name) for name in _SHOWN),
            *([record.key] if show_key else []),
        ]
        for record in records
    ]
    print_table(columns, rows, empty="no endpoints; create one with: stoker endpoints create NAME")
    for record in records:
        if record.broken:
            tell(f"{record.endpoint_name}: {record.broken}")


@app.command()
@takes(OfEndpoint)
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Letters, digits, _ and -.")],
    given: dict[str, Any],
    as_json: AsJson = False,
) -> None:
    """Create an endpoint. Give it machines with: stoker workergroups create."""

    async def work(client: Serverless) -> EndpointRecord:
        return await client.endpoints.create(name, **given)

    record = run(context, work)
    if as_json:
        print_json(record.as_json())
    else:
        say(f"created endpoint {record.endpoint_name}, id {record.id}")


@app.command()
def show(
    context: typer.Context, endpoint: EndpointArgument, as_json: AsJson = False, show_key: ShowKey = False
) -> None:
    """One endpoint: its parameters, and what it does now."""

    async def work(client: Serverless) -> tuple[EndpointRecord, dict[str, Any]]:
        record = await client.endpoints.get(endpoint)
        return record, await client.endpoints.status(record.id)

    record, status = run(context, work)
    said = record.as_json(show_key=show_key)
    if as_json:
        print_json(said | {"status": status})
        return
    console().print(make_table(["parameter", "value"], said.items()))
    console().print()
    console().print(make_table(["now", "value"], status.items()))


@app.command()
@takes(OfEndpoint)
def update(
    context: typer.Context, endpoint: EndpointArgument, given: dict[str, Any], as_json: AsJson = False
) -> None:
    """Change parameters of a live endpoint; they take effect at once."""

    async def work(client: Serverless) -> None:
        await client.endpoints.update(endpoint, **given)

    run(context, work)
    if as_json:
        print_json({"success": True, "changed": given})
    else:
        said = ", ".join(f"{name}={value}" for name, value in given.items())
        say(f"endpoint {endpoint}: {said}")


@app.command()
def delete(
    context: typer.Context,
    endpoint: EndpointArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="End its workflow as it is, and destroy its instances without draining: for one that is stuck.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete an endpoint with its workergroups: every worker is destroyed."""
    if not yes:
        how = " without draining" if force else ""
        typer.confirm(f"Destroy every worker of endpoint {endpoint}{how}?", abort=True, err=True)

    async def work(client: Serverless) -> dict[str, Any]:
        return await client.endpoints.delete(endpoint, force=force)

    done = run(context, work)
    if as_json:
        print_json({"success": True} | done)
    else:
        say(str(done.get("msg") or f"endpoint {endpoint} is being deleted; its workers are destroyed"))


@app.command("rotate-key")
def rotate_key(
    context: typer.Context,
    endpoint: EndpointArgument,
    overlap: Annotated[
        float, typer.Option(min=0, max=86400, help="Seconds for which the old key is valid besides.")
    ] = 0.0,
    as_json: AsJson = False,
    show_key: ShowKey = False,
) -> None:
    """Make the endpoint's routing key invalid and a new one valid."""

    async def work(client: Serverless) -> str:
        return await client.endpoints.rotate_key(endpoint, overlap_seconds=overlap)

    key = run(context, work)
    said = key if show_key else "(hidden)"
    if as_json:
        print_json({"success": True, "api_key": said})
    else:
        say(f"endpoint {endpoint} has a new key: {said}")
