"""The command and its subcommands."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from stoker.cli.advise import advise
from stoker.cli.context import Globals
from stoker.cli.endpoints import app as endpoints
from stoker.cli.inspect import costs, decisions, logs
from stoker.cli.keys import app as keys
from stoker.cli.machines.hosts import app as hosts
from stoker.cli.machines.market import offers, templates
from stoker.cli.machines.up import up
from stoker.cli.machines.workers import app as workers
from stoker.cli.numbers import StrictGroup
from stoker.cli.overview.doctor import doctor
from stoker.cli.overview.page import open_page
from stoker.cli.overview.status import status, top
from stoker.cli.request import request
from stoker.cli.watch import watch
from stoker.cli.workergroups import app as workergroups
from stoker.transport import version

app = typer.Typer(
    cls=StrictGroup,
    name="stoker",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Endpoints, workers and requests of a stoker engine.",
)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"stoker {version()}\n")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    url: Annotated[str | None, typer.Option(help="The engine's address; else STOKER_URL.")] = None,
    api_key: Annotated[
        str | None,
        typer.Option(help="The key; else STOKER_API_KEY, which is not visible in the process list."),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Do not check TLS certificates.")] = False,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command: the engine and the key."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # escape characters that the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    context.obj = Globals(url, api_key, insecure)


for group, name in (
    (endpoints, "endpoints"),
    (workergroups, "workergroups"),
    (workers, "workers"),
    (keys, "keys"),
    (templates, "templates"),
    (hosts, "hosts"),
):
    app.add_typer(group, name=name)
for command in (status, top, watch, up, offers, logs, decisions, costs, advise, request, doctor):
    app.command(command.__name__)(command)
app.command("open")(open_page)
