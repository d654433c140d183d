"""`stoker advise`: what-if analysis. A second config is planned beside the live one and not carried out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from stoker.cli.context import AsJson, EndpointArgument, run
from stoker.cli.output import console, format_number, format_time, make_table, print_json, print_line
from stoker.cli.parameters import ENDPOINT_OPTIONS, with_options
from stoker.client import Serverless


def _load_per_second(value: float) -> str:
    return f"{format_number(value)} load/s"


_ROWS: tuple[tuple[str, str, Callable[[float], str] | None], ...] = (
    ("hot workers now", "hot", "{:.0f}".format),
    ("hot workers, mean", "hot_mean", "{:.1f}".format),
    ("booting / cold now", "", None),
    ("hot capacity wanted", "hot_wanted", _load_per_second),
    ("$/h now", "dollars_per_hour", "{:.3f}".format),
    ("$/h, mean", "dollars_per_hour_mean", "{:.3f}".format),
    ("dollars since then", "dollars", "{:.2f}".format),
    ("expected wait, mean", "wait_seconds_mean", "{:.2f} s".format),
    ("late (over target_queue_time)", "late_share", "{:.2%}".format),
    ("starts / creates / stops", "", None),
)
_SIDES = ("live", "live_imagined", "advised")


@with_options(ENDPOINT_OPTIONS)
def advise(
    context: typer.Context,
    endpoint: EndpointArgument,
    given: dict[str, Any],
    stop: Annotated[bool, typer.Option("--stop", help="Stop the analysis.")] = False,
    as_json: AsJson = False,
) -> None:
    """Plan a second config beside the live one and compare; without parameters, show the comparison."""
    if stop and given:
        raise typer.BadParameter("--stop takes no parameters")

    async def work(client: Serverless) -> dict[str, Any]:
        which = endpoint
        if stop:
            await client.endpoints.stop_advice(which)
        elif given:
            await client.endpoints.advise(which, **given)
        return await client.endpoints.advice(which)

    found = run(context, work)
    if as_json:
        print_json(found)
    elif stop:
        print_line(f"endpoint {endpoint}: advice is stopped")
    elif not found.get("active"):
        print_line(
            f"endpoint {endpoint}: no second config is planned; try: stoker advise {endpoint} --target-util 0.8"
        )
    else:
        _show(endpoint, found)


def _show(endpoint: str, found: dict[str, Any]) -> None:
    asked = ", ".join(f"{name} = {value}" for name, value in found.get("config", {}).items())
    print_line(f"endpoint {endpoint}, advised beside the live config: {asked}")
    print_line(f"since {format_time(found.get('since'))} UTC; nothing of it is carried out")
    print_line("")
    table = make_table(["", "live", "live config, imagined", "advised, imagined"], list(_rows(found)))
    console().print(table)
    print_line("")
    print_line(f"{found.get('summary', '')}")


def _rows(found: dict[str, Any]) -> list[list[str]]:
    sides = [found.get(side) or {} for side in _SIDES]
    rows = []
    for title, name, shape in _ROWS:
        if title.startswith("booting"):
            cells = [f"{side.get('booting', 0):.0f} / {side.get('cold', 0):.0f}" for side in sides]
        elif title.startswith("starts"):
            cells = [_counts(side) for side in sides]
        else:
            cells = ["-" if shape is None or side.get(name) is None else shape(side[name]) for side in sides]
        rows.append([title, *cells])
    return rows


def _counts(side: dict[str, Any]) -> str:
    counts = [side.get(name) for name in ("starts", "creates", "stops")]
    return "-" if None in counts else " / ".join(str(count) for count in counts)
