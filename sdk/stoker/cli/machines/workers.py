"""`stoker workers`: an endpoint's workers, and what an operator does with one of them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stoker.cli.context import (
    AsJson,
    EndpointArgument,
    OptionalEndpointArgument,
    WorkergroupOption,
    Yes,
    complete_worker,
    confirm,
    one_of,
    run,
)
from stoker.cli.fields import describe, objects, worker_table
from stoker.cli.numbers import StrictGroup
from stoker.cli.output import (
    cell,
    console,
    format_seconds,
    format_time,
    make_table,
    print_json,
    print_result,
    print_table,
)
from stoker.client import Serverless
from stoker.management.records import WorkerRecord
from stoker.up.progress import PHASES
from stoker_wire.control import WorkerAction

_LIST = "list"


class _WorkersGroup(StrictGroup):
    """`stoker workers llm` stands for `stoker workers list llm`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in {*self.commands, *ctx.help_option_names}:
            args = [_LIST, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_WorkersGroup,
    help="The workers of an endpoint: `stoker workers ENDPOINT` lists them; the commands act on one.",
)
WorkerArgument = Annotated[
    str,
    typer.Argument(
        metavar="WORKER",
        help="Its instance id, or its launch id or the beginning of it.",
        autocompletion=complete_worker,
    ),
]


@app.command(_LIST)
def list_workers(
    context: typer.Context,
    endpoint: OptionalEndpointArgument = None,
    workergroup: WorkergroupOption = None,
    as_json: AsJson = False,
) -> None:
    """The workers of an endpoint, or of a workergroup."""
    one_of(endpoint, workergroup)

    async def work(client: Serverless) -> tuple[list[WorkerRecord], str]:
        if workergroup is not None:
            return await client.workergroups.workers(workergroup), ""
        records = await client.endpoints.workers(endpoint or "")
        return records, "" if records or as_json else await _why_none(client, endpoint or "")

    records, why = run(context, work)
    if as_json:
        print_json([record.as_json() for record in records])
    else:
        columns, rows = worker_table(records)
        print_table(columns, rows, empty=f"no workers{why}")


async def _why_none(client: Serverless, endpoint: str) -> str:
    number = (await client.endpoints.get(endpoint)).id
    rows = (await client.endpoints.overview())["endpoints"]
    reason = next((row.get("wait_reason") for row in objects(rows) if row.get("id") == number), "")
    return f": {reason}" if reason else ""


@app.command()
def show(
    context: typer.Context, endpoint: EndpointArgument, worker: WorkerArgument, as_json: AsJson = False
) -> None:
    """One worker: its figures, its error with the remedy, and the phases of its last boot with their seconds."""
    record = run(context, lambda client: client.endpoints.worker(endpoint, worker)).as_json()
    if as_json:
        print_json(record)
        return
    boot = objects(record.pop("boot", None))
    gpus = objects(record.pop("gpus", None))
    rows = [[name, describe(value, name)] for name, value in record.items() if name not in _NOT_SHOWN]
    rows = [row for row in rows if row[1] != "-"]
    rows += [[f"gpu {cell(each.get('index'))}", describe(each)] for each in gpus]
    console().print(make_table(["field", "value"], rows))
    console().print()
    print_table(
        ["boot phase", "began (UTC)", "took"],
        [
            [
                PHASES.get(str(each.get("phase")), str(each.get("phase"))),
                format_time(each.get("at")),
                format_seconds(each.get("seconds")) if each.get("seconds") else "-",
            ]
            for each in boot
        ],
        empty="no boot is recorded",
    )


_NOT_SHOWN = frozenset({"dlperf", "reliability", "gpu_name", "cur_perf", "new_load", "success"})
"""Fields of the official format that say nothing here."""


@app.command()
def drain(
    context: typer.Context, endpoint: EndpointArgument, worker: WorkerArgument, as_json: AsJson = False
) -> None:
    """Take a worker out of service: no new request, then it is stopped with its disk, until it is resumed."""
    _change(context, endpoint, worker, WorkerAction.DRAIN, as_json)


@app.command()
def resume(
    context: typer.Context, endpoint: EndpointArgument, worker: WorkerArgument, as_json: AsJson = False
) -> None:
    """Put a drained worker back in service, or cancel what has not been carried out yet."""
    _change(context, endpoint, worker, WorkerAction.RESUME, as_json)


@app.command()
def reboot(
    context: typer.Context, endpoint: EndpointArgument, worker: WorkerArgument, as_json: AsJson = False
) -> None:
    """Restart the container of a worker that is ready or failed. A ready one is drained first."""
    _change(context, endpoint, worker, WorkerAction.REBOOT, as_json)


@app.command()
def destroy(
    context: typer.Context,
    endpoint: EndpointArgument,
    worker: WorkerArgument,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Release a worker's machine with its disk. A ready worker is drained first; another may be rented for it."""
    confirm(yes, f"Destroy worker {worker} of endpoint {endpoint}?")
    _change(context, endpoint, worker, WorkerAction.DESTROY, as_json)


_DONE = {
    WorkerAction.DRAIN: "gets no new request, and is stopped once it is empty; stoker workers resume ends that",
    WorkerAction.RESUME: "is back in service",
    WorkerAction.REBOOT: "is rebooted once it is empty",
    WorkerAction.DESTROY: "is destroyed once it is empty",
}


def _change(context: typer.Context, endpoint: str, worker: str, action: WorkerAction, as_json: bool) -> None:
    done = run(context, lambda client: client.endpoints.change_worker(endpoint, worker, action))
    print_result(done, f"worker {done.get('launch_id') or worker}: {_DONE[action]}", as_json=as_json)
