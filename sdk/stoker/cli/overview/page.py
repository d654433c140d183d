"""`stoker open`: the dashboard in a browser."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from stoker.cli.context import OptionalEndpointArgument, run
from stoker.cli.output import fail, print_line
from stoker.client import Serverless
from stoker.errors import StokerError


def open_page(
    context: typer.Context,
    endpoint: OptionalEndpointArgument = None,
    show: Annotated[bool, typer.Option("--print", help="Print the address and open nothing.")] = False,
) -> None:
    """Open the dashboard, at this endpoint's page if one is given; prints the address."""

    async def address(client: Serverless) -> str:
        base = str((await client.endpoints.overview()).get("dashboard_url") or "")
        if not base or endpoint is None:
            return base
        return f"{base}/endpoints/{(await client.endpoints.get(endpoint)).id}"

    url = run(context, address)
    if not url:
        fail(
            StokerError(
                "this engine has no dashboard; set dashboard.port in the deployment's settings and restart it"
            )
        )
    print_line(url)
    if not show:
        webbrowser.open(url)
