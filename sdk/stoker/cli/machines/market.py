"""`stoker offers` and `stoker templates`: machines for rent, and the code that instances run."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from stoker.cli.context import AsJson, Yes, confirm, run
from stoker.cli.numbers import StrictGroup
from stoker.cli.output import (
    console,
    format_number,
    make_table,
    print_json,
    print_notice,
    print_result,
    print_table,
)
from stoker.client import Serverless
from stoker.errors import NotFound
from stoker.management.marketplace import FoundOffers
from stoker.management.records import OfferRecord, TemplateRecord

templates = typer.Typer(
    cls=StrictGroup, no_args_is_help=True, help="Templates: the image and start command of instances."
)

OFFER_COLUMNS = ("id", "machine", "VRAM/GPU", "$/h", "$/h cold", "Mbit/s", "reliability", "place")

Hash = Annotated[str, typer.Argument(metavar="HASH", help="Hash of the template.")]


def offers(
    context: typer.Context,
    search: Annotated[str, typer.Argument(help="Filters, e.g. 'gpu_ram>=24 num_gpus=1'.")] = "",
    template_hash: Annotated[
        str | None, typer.Option(help="Use this template's filters and disk too.")
    ] = None,
    disk: Annotated[
        float | None, typer.Option(min=1, help="Size of the disk, GB; it is part of the price.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Machines for rent, cheapest first, with their prices while running and while stopped."""

    async def work(client: Serverless) -> FoundOffers:
        args = None if disk is None else f"--disk {format_number(disk)}"
        return await client.marketplace.offers(search, template_hash=template_hash, launch_args=args)

    found = run(context, work)
    if as_json:
        print_json([offer.as_json() for offer in found.offers[:limit]])
        return
    print_table(OFFER_COLUMNS, offer_rows(found.offers[:limit]), empty=found.reason or "no offer matches")
    if len(found.offers) > limit:
        print_notice(f"{len(found.offers) - limit} more; see them with --limit")


def offer_rows(found: list[OfferRecord]) -> list[list[Any]]:
    """One row per offer, in the order of OFFER_COLUMNS."""
    return [
        [
            offer.id,
            offer.kind,
            f"{offer.gpu_ram / 1024:.1f} GiB" if offer.gpu_ram else "no GPU",
            offer.hot_dollars_per_hour,
            offer.cold_dollars_per_hour,
            offer.inet_down,
            offer.reliability,
            offer.geolocation,
        ]
        for offer in found
    ]


@templates.command("list")
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """All templates of the deployment's marketplace account."""
    found = run(context, lambda client: client.marketplace.templates())
    if as_json:
        print_json([record.as_json() for record in found])
        return
    rows = [[record.id, record.hash_id, record.name, record.image] for record in found]
    print_table(
        ["id", "hash", "name", "image"], rows, empty="no templates; create one with: stoker templates create"
    )


@templates.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the template.")],
    image: Annotated[str | None, typer.Option(help="Container image.")] = None,
    env: Annotated[str, typer.Option(help="Docker flags, e.g. '-p 3000:3000 -e A=b'.")] = "-p 3000:3000",
    onstart: Annotated[str | None, typer.Option(help="Start command, run with bash.")] = None,
    disk: Annotated[float | None, typer.Option(min=1, help="Size of the disk, GB.")] = None,
    extra_filters: Annotated[str | None, typer.Option(help="Search filters, as a JSON object.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a template; an equal one is created once."""
    _check_filters(extra_filters)
    given = {
        "name": name,
        "image": image,
        "env": env,
        "onstart": onstart,
        "recommended_disk_space": disk,
        "extra_filters": extra_filters,
    }

    async def work(client: Serverless) -> TemplateRecord:
        known = {field: value for field, value in given.items() if value is not None}
        return await client.marketplace.create_template(**known)

    made = run(context, work)
    print_result(made.as_json(), f"template {made.name}, hash {made.hash_id}", as_json=as_json)


def _check_filters(text: str | None) -> None:
    """Raises BadParameter for text that no search could read."""
    try:
        given = {} if text is None else json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise typer.BadParameter(
            f'expected a JSON object such as {{"num_gpus": {{"eq": 1}}}}, got {text!r:.60}',
            param_hint="--extra-filters",
        )


@templates.command()
def show(context: typer.Context, hash_id: Hash, as_json: AsJson = False) -> None:
    """One template."""

    async def work(client: Serverless) -> TemplateRecord:
        for record in await client.marketplace.templates():
            if record.hash_id == hash_id:
                return record
        raise NotFound(f"no template with hash {hash_id!r:.80}; see `stoker templates list`")

    row = run(context, work).as_json()
    if as_json:
        print_json(row)
    else:
        console().print(
            make_table(["field", "value"], [[name, value] for name, value in row.items() if value])
        )


@templates.command()
def delete(
    context: typer.Context,
    hash_id: Hash,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete a template that no workergroup uses."""
    confirm(yes, f"Delete template {hash_id}?")

    run(context, lambda client: client.marketplace.delete_template(hash_id))
    print_result({"success": True}, f"template {hash_id} is deleted", as_json=as_json)
