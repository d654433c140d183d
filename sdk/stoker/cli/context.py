"""Shared by all commands: the engine, the key, common arguments, and the run of a command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

import typer

from stoker.cli.output import fail, print_notice
from stoker.client import Serverless
from stoker.errors import StokerError
from stoker.requests.retry.backoff import RetryPolicy

T = TypeVar("T")

COMPLETION_SECONDS_MAX = 2.0
ENGINE_SECONDS_MAX = 10.0
"""Tolerated outage of the engine; short, because a person waits at the terminal."""
PATIENT_SECONDS_MAX = 120.0
"""The same for commands that run on for long, such as `stoker watch`."""
SILENT_SECONDS_MAX = 2.0
"""An outage that lasts longer is reported on standard error."""

ENDPOINT_HELP = "The endpoint's name, or its id as id:123. Before a name that begins with a dash write --."
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
WorkergroupOption = Annotated[int | None, typer.Option("--workergroup", "-g", help="Id of a workergroup.")]


class OutageNotice:
    """Says once per outage that the engine does not answer, so that a command that waits for it is not silent."""

    def __init__(self, tolerated_seconds: float) -> None:
        self._tolerated_seconds = tolerated_seconds
        self._said_at = 0.0

    def __call__(self, outage_seconds: float, reason: str) -> None:
        """The outage has lasted this long."""
        if outage_seconds < self._said_at:
            self._said_at = 0.0  # another outage
        if outage_seconds >= SILENT_SECONDS_MAX and not self._said_at:
            self._said_at = outage_seconds
            left = self._tolerated_seconds - outage_seconds
            print_notice(f"stoker: the engine does not answer ({reason}); trying for another {left:.0f} s")


def one_of(endpoint: str | None, workergroup: int | None) -> None:
    """Check that exactly one of both is given."""
    if (endpoint is None) == (workergroup is None):
        raise typer.BadParameter("give either ENDPOINT or --workergroup ID")


def confirm(yes: bool, question: str) -> None:
    """Ask, unless --yes was given; an answer other than yes ends the program."""
    if not yes:
        typer.confirm(question, abort=True, err=True)


@dataclass(frozen=True, slots=True)
class Globals:
    """The options before the command."""

    url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    insecure: bool = False

    def client(
        self, *, timeout_seconds: float = 600.0, outage_seconds_max: float | None = None
    ) -> Serverless:
        """A client of the engine, which tolerates its outage for this time, or for ENGINE_SECONDS_MAX."""
        tolerated = ENGINE_SECONDS_MAX if outage_seconds_max is None else outage_seconds_max
        retry = RetryPolicy(engine_outage_seconds_max=tolerated, on_outage=OutageNotice(tolerated))
        return Serverless(
            self.api_key, url=self.url, timeout=timeout_seconds, retry=retry, verify=not self.insecure
        )


def complete_endpoint(context: typer.Context, incomplete: str) -> list[str]:
    """Names of endpoints that begin with this text, for the shell."""

    async def names(client: Serverless) -> list[str]:
        return [str(row["name"]) for row in (await client.endpoints.overview())["endpoints"]]

    return _complete(context, incomplete, names)


def complete_worker(context: typer.Context, incomplete: str) -> list[str]:
    """Instance ids of the workers of the endpoint that the command line names before, for the shell."""
    # An option without its value, which is to be completed, leaves the arguments before it unread.
    endpoint: str = context.params.get("endpoint") or next(iter(context.args), "")

    async def ids(client: Serverless) -> list[str]:
        return [str(worker.id) for worker in await client.endpoints.workers(endpoint) if worker.id]

    return _complete(context, incomplete, ids) if endpoint else []


def _complete(
    context: typer.Context, incomplete: str, words: Callable[[Serverless], Awaitable[list[str]]]
) -> list[str]:
    """The words that begin with this text; none if the engine does not answer at once."""
    options = context.find_root().params
    given = Globals(options.get("url"), options.get("api_key"), bool(options.get("insecure")))

    async def ask() -> list[str]:
        async with asyncio.timeout(COMPLETION_SECONDS_MAX), given.client(outage_seconds_max=0.0) as client:
            return await words(client)

    try:
        return [word for word in asyncio.run(ask()) if word.startswith(incomplete)]
    except (StokerError, TimeoutError):
        return []


def complete_from(*words: str) -> Callable[[str], list[str]]:
    """A completion from a fixed list."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


EndpointArgument = Annotated[
    str,
    typer.Argument(metavar="ENDPOINT", help=ENDPOINT_HELP, autocompletion=complete_endpoint),
]
OptionalEndpointArgument = Annotated[
    str | None,
    typer.Argument(metavar="ENDPOINT", help=ENDPOINT_HELP, autocompletion=complete_endpoint),
]
EndpointOption = Annotated[
    str | None, typer.Option("--endpoint", "-e", help=ENDPOINT_HELP, autocompletion=complete_endpoint)
]


def run(
    context: typer.Context,
    work: Callable[[Serverless], Awaitable[T]],
    *,
    timeout_seconds: float = 600.0,
    outage_seconds_max: float | None = None,
) -> T:
    """Run a command's work with a client; an error ends the program with one line.

    `outage_seconds_max` is the tolerated outage of the engine, s; None: ENGINE_SECONDS_MAX.
    """
    given = context.find_object(Globals) or Globals()

    async def run_with_client() -> T:
        async with given.client(
            timeout_seconds=timeout_seconds, outage_seconds_max=outage_seconds_max
        ) as client:
            return await work(client)

    try:
        return asyncio.run(run_with_client())
    except StokerError as fault:
        fail(fault)
