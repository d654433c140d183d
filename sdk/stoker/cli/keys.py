"""`stoker keys`: named keys of an endpoint, with limits and a priority class."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stoker.cli.context import AsJson, EndpointArgument, run
from stoker.cli.numbers import StrictGroup
from stoker.cli.output import format_time, print_json, print_line, print_notice, print_result, print_table
from stoker_wire.security.client_key import Priority

app = typer.Typer(
    cls=StrictGroup, no_args_is_help=True, help="Named keys of an endpoint: one for each client, with limits."
)

Name = Annotated[str, typer.Argument(help="The key's name, e.g. that of its client.")]
LoadPerSecond = Annotated[float | None, typer.Option(help="Limit of load per second; none: no limit.")]
DollarsPerDay = Annotated[float | None, typer.Option(help="Limit of dollars per UTC day; none: no limit.")]
PriorityClass = Annotated[Priority, typer.Option("--priority", help="Class of its requests in the queue.")]

COLUMNS = ("name", "priority", "load/s", "$/day", "$ today", "created (UTC)")


@app.command()
def create(
    context: typer.Context,
    endpoint: EndpointArgument,
    name: Name,
    load_per_second: LoadPerSecond = None,
    dollars_per_day: DollarsPerDay = None,
    priority: PriorityClass = Priority.NORMAL,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it. It is shown only now: the engine stores its hash."""
    limits: dict[str, Any] = {
        "load_per_second": load_per_second,
        "dollars_per_day": dollars_per_day,
        "priority": priority.value,
    }

    key = run(context, lambda client: client.keys.create(endpoint, name, **limits)).get_secret_value()
    if as_json:
        print_json({"success": True, "name": name, "api_key": key})
    else:
        print_line(key)
        print_notice(f"key {name} of endpoint {endpoint}; it is not shown again")


@app.command("list")
def list_(context: typer.Context, endpoint: EndpointArgument, as_json: AsJson = False) -> None:
    """The keys with their limits and what they used today. Their texts are not stored."""
    keys = run(context, lambda client: client.keys.list(endpoint))
    if as_json:
        print_json([key.as_json() for key in keys])
        return
    rows = [
        [
            key.name,
            key.priority,
            key.load_per_second,
            key.dollars_per_day,
            key.dollars_today,
            format_time(key.created_at),
        ]
        for key in keys
    ]
    print_table(COLUMNS, rows, empty=f"no keys; create one with: stoker keys create {endpoint} NAME")


@app.command()
def revoke(context: typer.Context, endpoint: EndpointArgument, name: Name, as_json: AsJson = False) -> None:
    """Make a key invalid. Requests that are on workers finish."""
    run(context, lambda client: client.keys.revoke(endpoint, name))
    print_result({"success": True}, f"key {name} of endpoint {endpoint} is revoked", as_json=as_json)
