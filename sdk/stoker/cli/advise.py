"""`stoker advise`: a second config planned beside a live endpoint's own. Nothing of it is carried out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stoker.cli.context import AsJson, EndpointArgument, run
from stoker.cli.inspect import clock
from stoker.cli.output import console, make_table, print_json, say
from stoker.cli.parameters import OfEndpoint, takes
from stoker.client import Serverless

Tuning = Annotated[
    str | None,
    typer.Option(help="thrifty or generous: less, or more, spare for chance than the policy's own."),
]

_ROWS = (
    ("hot workers now", "hot", "{:.0f}"),
    ("hot workers, mean", "hot_mean", "{:.1f}"),
    ("booting / cold now", "", ""),
    ("hot capacity wanted", "hot_wanted", "{:.4g} load/s"),
    ("$/h now", "dollars_per_hour", "{:.3f}"),
    ("$/h, mean", "dollars_per_hour_mean", "{:.3f}"),
    ("dollars since then", "dollars", "{:.2f}"),
    ("expected wait, mean", "wait_seconds_mean", "{:.2f} s"),
    ("late (over target_queue_time)", "late_share", "{:.2%}"),
    ("starts / creates / stops", "", ""),
)
_SIDES = ("live", "live_imagined", "advised")


@takes(OfEndpoint)
def advise(
    context: typer.Context,
    endpoint: EndpointArgument,
    given: dict[str, Any],
    stop: Annotated[bool, typer.Option("--stop", help="Plan no second config any more.")] = False,
    tuning: Tuning = None,
    as_json: AsJson = False,
) -> None:
    """Plan a second config beside the live one and compare; without parameters: look at what came of it."""
    wanted = given if tuning is None else given | {"tuning": tuning}
    if stop and wanted:
        raise typer.BadParameter("--stop takes no parameters")

    async def work(client: Serverless) -> dict[str, Any]:
        which = endpoint
        if stop:
            await client.endpoints.stop_advice(which)
        elif wanted:
            await client.endpoints.advise(which, **wanted)
        return await client.endpoints.advice(which)

    found = run(context, work)
    if as_json:
        print_json(found)
    elif stop:
        say(f"endpoint {endpoint}: no second config is planned any more")
    elif not found.get("active"):
        say(
            f"endpoint {endpoint}: no second config is planned; try: stoker advise {endpoint} --target-util 0.8"
        )
    else:
        _show(endpoint, found)


def _show(endpoint: str, found: dict[str, Any]) -> None:
    asked = ", ".join(f"{name} = {value}" for name, value in found.get("config", {}).items())
    if found.get("tuning", "default") != "default":
        asked = ", ".join(filter(None, (asked, f"tuning {found['tuning']}")))
    say(f"endpoint {endpoint}, advised beside the live config: {asked}")
    say(f"since {clock(found.get('since'))} UTC; nothing of it is carried out")
    say("")
    table = make_table(["", "live", "live config, imagined", "advised, imagined"], list(_rows(found)))
    console().print(table)
    differences = found.get("differences") or []
    say("")
    say(f"{found.get('summary', '')}")
    if not differences:
        say("now, with the live fleet: no step differs")
        return
    say("now, with the live fleet:")
    for each in differences:
        who = "advised config only" if each.get("side") == "advised" else "live config only"
        say(f"  {who}: {each.get('op')} {each.get('subject')}: {each.get('reason')}")


def _rows(found: dict[str, Any]) -> list[list[str]]:
    sides = [found.get(side) or {} for side in _SIDES]
    rows = []
    for title, name, shape in _ROWS:
        if title.startswith("booting"):
            cells = [f"{side.get('booting', 0):.0f} / {side.get('cold', 0):.0f}" for side in sides]
        elif title.startswith("starts"):
            cells = [_counts(side) for side in sides]
        else:
            cells = ["-" if side.get(name) is None else shape.format(side[name]) for side in sides]
        rows.append([title, *cells])
    return rows


def _counts(side: dict[str, Any]) -> str:
    counts = [side.get(name) for name in ("starts", "creates", "stops")]
    return "-" if None in counts else " / ".join(str(count) for count in counts)
