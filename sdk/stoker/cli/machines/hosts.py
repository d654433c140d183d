"""`stoker hosts`: hosts that are temporarily not rented, and how to allow them again."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stoker.cli.context import AsJson, EndpointArgument, EndpointOption, run
from stoker.cli.fields import objects
from stoker.cli.numbers import StrictGroup
from stoker.cli.output import format_time, print_json, print_result, print_table
from stoker.client import Serverless

app = typer.Typer(
    cls=StrictGroup,
    invoke_without_command=True,
    help="Hosts that are temporarily not rented because of failures.",
)

COLUMNS = ("endpoint", "machine", "workergroup", "blocked until (UTC)", "reason")


@app.callback()
def hosts(context: typer.Context) -> None:
    """Without a command: all blocked hosts."""
    if context.invoked_subcommand is None:
        _show(context, None, as_json=False)


@app.command("list")
def list_(context: typer.Context, endpoint: EndpointOption = None, as_json: AsJson = False) -> None:
    """The blocked hosts of all endpoints or of one, with the reason and the end of the block."""
    _show(context, endpoint, as_json=as_json)


@app.command()
def unblock(
    context: typer.Context,
    endpoint: EndpointArgument,
    machines: Annotated[
        list[int] | None, typer.Argument(metavar="[MACHINE]...", min=1, help="Machine ids; none: all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Allow blocked hosts again before the end of the block; without machine ids, all of them."""
    freed = run(context, lambda client: client.endpoints.unblock_hosts(endpoint, machines or ()))
    named = ", ".join(map(str, freed))
    said = f"{len(freed)} hosts may be rented again: {named}" if freed else "none of these hosts was blocked"
    print_result({"success": True, "unblocked": freed}, said, as_json=as_json)


def rows(endpoint: str, hosts: dict[str, Any]) -> list[list[Any]]:
    """One row per host or paused workergroup, in the order of COLUMNS."""
    found: list[list[Any]] = []
    for host in objects(hosts.get("blocked")):
        until = format_time(host.get("until"))
        found.append(
            [endpoint, host.get("machine_id"), host.get("workergroup_id"), until, host.get("reason")]
        )
    for host in objects(hosts.get("not_to_blame")):
        reason = f"the same failure on several hosts: {host.get('reason')}"
        found.append([endpoint, host.get("machine_id"), host.get("workergroup_id"), "not blocked", reason])
    found.extend(
        [endpoint, "-", wait.get("subject"), format_time(wait.get("until")), wait.get("reason")]
        for wait in objects(hosts.get("paused"))
    )
    return found


def _show(context: typer.Context, endpoint: str | None, *, as_json: bool) -> None:
    async def work(client: Serverless) -> dict[str, dict[str, Any]]:
        if endpoint is not None:
            record = await client.endpoints.get(endpoint)
            return {record.endpoint_name: await client.endpoints.hosts(record.id)}
        records = await client.endpoints.list()
        return {record.endpoint_name: await client.endpoints.hosts(record.id) for record in records}

    found = run(context, work)
    if as_json:
        print_json(found)
        return
    table = [row for name, blocked in found.items() for row in rows(name, blocked)]
    print_table(COLUMNS, table, empty="no host is blocked")
