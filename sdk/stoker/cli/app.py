"""The command and its subcommands."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from stoker.cli import advise, endpoints, hosts, inspect, request, watch, workergroups
from stoker.cli.context import Globals
from stoker.transport import version

app = typer.Typer(
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


app.add_typer(endpoints.app, name="endpoints")
app.add_typer(workergroups.app, name="workergroups")
app.add_typer(hosts.app, name="hosts")
app.command("workers")(inspect.workers)
app.command("logs")(inspect.logs)
app.command("decisions")(inspect.decisions)
app.command("costs")(inspect.costs)
app.command("advise")(advise.advise)
app.command("request")(request.request)
app.command("watch")(watch.watch)
