"""Shared by all commands: the engine, the key, common arguments, and the run of a command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

import typer

from stoker.cli.output import fail
from stoker.client import Serverless
from stoker.errors import StokerError
from stoker.requests.retry.backoff import RetryPolicy

T = TypeVar("T")

ENGINE_SECONDS_MAX = 10.0
"""Tolerated outage of the engine; short, because a person waits at the terminal."""

ENDPOINT_HELP = "The endpoint's name, or its id as id:123. Before a name that begins with a dash write --."
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
EndpointArgument = Annotated[str, typer.Argument(metavar="ENDPOINT", help=ENDPOINT_HELP)]
EndpointOption = Annotated[str | None, typer.Option("--endpoint", "-e", help=ENDPOINT_HELP)]
WorkergroupOption = Annotated[int | None, typer.Option("--workergroup", "-g", help="Id of a workergroup.")]


@dataclass(frozen=True, slots=True)
class Globals:
    """The options before the command."""

    url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    insecure: bool = False

    def client(self, *, timeout_seconds: float = 600.0, patient: bool = False) -> Serverless:
        """A client of the engine."""
        retry = RetryPolicy() if patient else RetryPolicy(engine_outage_seconds_max=ENGINE_SECONDS_MAX)
        return Serverless(
            self.api_key, url=self.url, timeout=timeout_seconds, retry=retry, verify=not self.insecure
        )


def run(
    context: typer.Context,
    work: Callable[[Serverless], Awaitable[T]],
    *,
    timeout_seconds: float = 600.0,
    patient: bool = False,
) -> T:
    """Run a command's work with a client; an error ends the program with one line.

    `patient` tolerates a longer outage of the engine.
    """
    given = context.find_object(Globals) or Globals()

    async def run_with_client() -> T:
        async with given.client(timeout_seconds=timeout_seconds, patient=patient) as client:
            return await work(client)

    try:
        return asyncio.run(run_with_client())
    except StokerError as fault:
        fail(fault)
