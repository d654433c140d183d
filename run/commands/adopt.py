"""`stokerd adopt`: assign instances to this deployment that no running deployment owns."""

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from market.interface import InstanceGone, MarketError
from market.ownership import DeploymentMarket, Owner, owner_of
from run.errors import CommandError
from run.state_folder.identity import require_identity
from stoker.cli.output import in_cells
from stoker_wire.control import workflow_id
from stoker_wire.market import Instance

CONFIRMATION = "adopt"
"""The word that the user types to confirm."""


async def run_adopt(
    market: DeploymentMarket,
    client: Client,
    *,
    origin: str | None,
    confirmed: Callable[[str], bool],
    console: Console,
) -> tuple[int, ...]:
    """List the instances, ask for confirmation, change their labels and return the adopted ids.

    `origin` is the deployment that owned them; None: instances whose labels name no deployment.

    Raises:
        CommandError: the marketplace or Temporal does not answer, or the user did not confirm.
    """
    if origin is not None:
        require_identity(origin, "--from")
    if origin == market.deployment:
        raise CommandError(f"{origin} is this deployment: it already owns its instances")
    try:
        found = [
            (one, owner)
            for one in await _candidates(market, origin)
            if (owner := owner_of(one.label)) is not None and owner.deployment == origin
        ]
        if not found:
            console.print("there is nothing to adopt")
            return ()
        await _show(found, client, console)
        question = (
            f"{len(found)} instances will belong to the deployment {market.deployment}. Type {CONFIRMATION}: "
        )
        if not confirmed(question):
            raise CommandError("not confirmed; nothing was changed", exit_code=1)
        return await _adopt(market, [one for one, _ in found], console)
    except MarketError as fault:
        raise CommandError(f"the marketplace does not answer ({fault}); try again", exit_code=4) from fault
    except RPCError as fault:
        raise CommandError(f"Temporal does not answer ({fault}); try again", exit_code=4) from fault


async def _candidates(market: DeploymentMarket, origin: str | None) -> tuple[Instance, ...]:
    account = await market.account()
    return account.unowned if origin is None else account.foreign


async def _adopt(market: DeploymentMarket, found: list[Instance], console: Console) -> tuple[int, ...]:
    adopted = []
    for one in found:
        try:
            await market.adopt(one)
        except InstanceGone as fault:
            console.print(f"not adopted: {fault}", markup=False)
        else:
            adopted.append(one.id)
    console.print(f"adopted: {len(adopted)}")
    return tuple(adopted)


async def _show(found: list[tuple[Instance, Owner]], client: Client, console: Console) -> None:
    runs = {name: await _runs(client, name) for name in sorted({owner.endpoint for _, owner in found})}
    table = Table("instance", "endpoint", "status", "$/h", "endpoint here", title="instances to adopt")
    for one, owner in found:
        here = "runs" if runs[owner.endpoint] else "does not run: the sweep destroys the instance"
        table.add_row(
            *in_cells(one.id, owner.endpoint, one.actual_status or "?", f"{one.dph_total:.3f}", here)
        )
    console.print(table)


async def _runs(client: Client, endpoint: str) -> bool:
    try:
        found = await client.get_workflow_handle(workflow_id(endpoint)).describe()
    except RPCError as fault:
        if fault.status is not RPCStatusCode.NOT_FOUND:
            raise
        return False
    return found.status is WorkflowExecutionStatus.RUNNING
