"""`stokerd panic`: stop the endpoints and destroy every instance of this deployment.

It needs only the marketplace, its key and the deployment's identity; Temporal and the engine may be down.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog
from rich.console import Console
from rich.table import Table
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.messages import read_label
from market.interface import InstanceGone, MarketError, RateLimited, Unauthorised
from market.ownership import LABEL_PREFIX, DeploymentMarket, count_by_deployment
from run.errors import CommandError
from run.processes.temporal_server import Target, connect_to
from run.state_folder.identity import identity_of, read_identity, require_identity
from stoker.cli.output import in_cells
from stoker_wire.control import UPDATE_CONFIG, WORKFLOW_TYPE
from stoker_wire.market import Instance
from workflows.sweep.known_instances import known_instances

log = structlog.get_logger(__name__)

TEMPORAL_SECONDS_MAX = 5.0
STOP_SECONDS_MAX = 60.0
_RPC_TIMEOUT = timedelta(seconds=10)
DESTROY_SECONDS_MAX = 300.0
"""A real marketplace accepts one destroy every few seconds."""
_CONCURRENCY = 4
_PAUSE_SECONDS = 1.0
_STOPPED = {"endpoint_state": "stopped", "max_workers": 0}
"""The config change after which an endpoint rents nothing, whatever its workflow finds missing."""

CONFIRMATION = "panic"
"""The word that the user types to confirm."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """Endpoints that were stopped."""

    names: tuple[str, ...]
    fault: str
    """Why other endpoints were not stopped; empty: all were."""


@dataclass(frozen=True, slots=True)
class Panic:
    """The result of the command."""

    endpoints: Stopped
    destroyed: tuple[int, ...]
    left: tuple[int, ...]
    """Instances that the marketplace still lists."""

    def faults(self) -> list[str]:
        """The failures, with what the user has to do."""
        faults = []
        if self.endpoints.fault:
            faults.append(
                f"endpoints could not be stopped ({self.endpoints.fault}), and will rent machines again; "
                "run it again once Temporal answers, and stop the Temporal workers until then"
            )
        if self.left:
            numbers = ", ".join(map(str, self.left))
            faults.append(f"still listed: {numbers}; run it again, or use the marketplace's own console")
        return faults


async def find_deployment(
    target: Target, state_dir: Path, given: str | None, console: Console
) -> tuple[str, Client | None]:
    """The deployment's identity, and a client of its Temporal, or None if Temporal does not answer.

    The identity is `given` if not None, else it is read from Temporal, else from the state folder.

    Raises:
        CommandError: the identity is unknown.
    """
    console.print(f"Temporal {target}", markup=False)
    client = found = None
    try:
        client = await connect_to(target, wait_seconds_max=TEMPORAL_SECONDS_MAX)
        found = await identity_of(client)
    except CommandError as fault:
        console.print(str(fault), style="yellow", markup=False)
    if found is None:
        kept = read_identity(state_dir)
        found = kept.deployment if kept and kept.temporal in {"", target.name} else None
    if given is not None and given != found:
        require_identity(given, "--deployment")
        if found is not None:
            console.print(f"this Temporal belongs to the deployment {found}: its endpoints are not stopped")
        return given, None
    if found is None:
        raise CommandError(
            "which deployment? Temporal does not answer, and the state folder has no identity for it; "
            "give --deployment (stokerd prints it at each start, and it is part of the labels)",
            exit_code=4,
        )
    return found, client


async def run_panic(
    market: DeploymentMarket,
    client: Client | None,
    *,
    endpoint: str | None,
    confirmed: Callable[[str], bool],
    console: Console,
) -> Panic:
    """List the instances, ask for confirmation, stop the endpoints, destroy the instances, and list again.

    `client` is a client of the deployment's Temporal, or None if it does not answer.

    Raises:
        CommandError: the marketplace does not answer or refuses the key, or the user did not confirm.
    """
    found = [*await _by_label(market, endpoint, console), *await _by_id(market, client, endpoint, console)]
    _show(found, market.deployment, console)
    if found and not confirmed(
        f"{len(found)} instances will be destroyed with their disks. Type {CONFIRMATION}: "
    ):
        raise CommandError("not confirmed; nothing was changed", exit_code=1)
    stopped = await _stop_endpoints(client, endpoint)
    destroyed: set[int] = set()
    deadline = time.monotonic() + DESTROY_SECONDS_MAX
    found = list({one.id: one for one in found}.values())
    while found:
        await _destroy(market, found)
        destroyed |= {one.id for one in found}
        found = [*await _by_label(market, endpoint), *await _by_id(market, client, endpoint)]
        if found and time.monotonic() > deadline:
            break
        if found:
            await asyncio.sleep(_PAUSE_SECONDS)
    left = tuple(one.id for one in found)
    return Panic(stopped, tuple(sorted(destroyed - set(left))), left)


async def _by_label(
    market: DeploymentMarket, endpoint: str | None, console: Console | None = None
) -> list[Instance]:
    """This deployment's instances, most expensive first. Others are reported on `console`."""
    try:
        account = await market.account()
    except Unauthorised as fault:
        raise CommandError(
            f"the marketplace does not know the key ({fault}); set STOKER_MARKET_KEY or VAST_API_KEY"
        ) from fault
    except MarketError as fault:
        raise CommandError(
            f"the marketplace does not answer ({fault}); try again, or use its own console", exit_code=4
        ) from fault
    if console is not None:
        for deployment, count in sorted(count_by_deployment(account.foreign).items()):
            console.print(f"not touched: {count} instances of the deployment {deployment}")
        if account.unowned:
            console.print(
                f"not touched: {len(account.unowned)} instances whose labels name no deployment (see stokerd adopt)"
            )
    ours = [one for one in account.own if endpoint in {None, (read_label(one.label) or ("",))[0]}]
    return sorted(ours, key=lambda one: -one.dph_total)


async def _by_id(
    market: DeploymentMarket, client: Client | None, endpoint: str | None, console: Console | None = None
) -> list[Instance]:
    """Instances that workflows know and the list lacks, because it is incomplete or their label was edited."""
    if client is None:
        return []
    try:
        known = await known_instances(client, time.time())
        listed = {one.id for one in await market.list(label_prefix=LABEL_PREFIX)}
    except (RPCError, MarketError) as fault:
        if console is not None:
            console.print(f"instances are found only by their labels ({fault})", style="yellow", markup=False)
        return []
    names = (known.running, known.ended)
    ids = {i for ids in names for name, some in ids.items() if endpoint in {None, name} for i in some}
    limit = asyncio.Semaphore(_CONCURRENCY)

    async def look(instance_id: int) -> Instance | None:
        async with limit:
            try:
                return await market.show(instance_id)
            except InstanceGone:
                return None
            except MarketError as fault:
                log.warning("instance_not_looked_up", instance_id=instance_id, error=str(fault))
                return None

    looked = await asyncio.gather(*(look(each) for each in sorted(ids - listed)))
    return [one for one in looked if one is not None]


async def _stop_endpoints(client: Client | None, endpoint: str | None) -> Stopped:
    """Set every endpoint to `stopped`. Instances are destroyed even if Temporal does not answer."""
    if client is None:
        return Stopped((), "Temporal does not answer")
    try:
        async with asyncio.timeout(STOP_SECONDS_MAX):
            return await _signal_endpoints(client, endpoint)
    except (RPCError, TimeoutError) as fault:
        return Stopped((), str(fault) or f"Temporal did not answer within {STOP_SECONDS_MAX:.0f} s")


async def _signal_endpoints(client: Client, endpoint: str | None) -> Stopped:
    query = f"WorkflowType = '{WORKFLOW_TYPE}' AND ExecutionStatus = 'Running'"
    limit = asyncio.Semaphore(_CONCURRENCY)
    stopped: list[str] = []
    failed: list[str] = []

    async def stop(workflow: str, name: str) -> None:
        async with limit:
            try:
                handle = client.get_workflow_handle(workflow)
                await handle.signal(UPDATE_CONFIG, _STOPPED, rpc_timeout=_RPC_TIMEOUT)
            except RPCError as fault:
                if fault.status is not RPCStatusCode.NOT_FOUND:  # it has completed meanwhile
                    failed.append(f"{name} ({fault.status.name})")
            else:
                stopped.append(name)

    running = [
        (execution.id, execution.id.removeprefix("endpoint/"))
        async for execution in client.list_workflows(query, rpc_timeout=_RPC_TIMEOUT)
    ]
    await asyncio.gather(*(stop(*one) for one in running if endpoint in {None, one[1]}))
    return Stopped(tuple(sorted(stopped)), "; ".join(failed))


async def _destroy(market: DeploymentMarket, found: Sequence[Instance]) -> None:
    """Try to destroy each instance once; failures remain in the next list."""
    limit = asyncio.Semaphore(_CONCURRENCY)

    async def one(instance: Instance) -> None:
        async with limit:
            try:
                await market.destroy(instance.id)
            except InstanceGone:
                return
            except RateLimited as fault:
                await asyncio.sleep(min(fault.retry_after_s or _PAUSE_SECONDS, 30.0))
            except MarketError as fault:
                log.warning("destroy_failed", instance_id=instance.id, error=str(fault))

    await asyncio.gather(*(one(instance) for instance in found))


def _show(found: Sequence[Instance], deployment: str, console: Console) -> None:
    if not found:
        console.print(f"the deployment {deployment} has no instance")
        return
    title = f"instances of the deployment {deployment}"
    table = Table("instance", "endpoint", "machine", "status", "$/h", title=title)
    for one in found:
        label = read_label(one.label)
        kind = f"{one.num_gpus}x {one.gpu_name or '?'}"
        name = label[0] if label else "?"
        table.add_row(*in_cells(one.id, name, kind, one.actual_status or "?", f"{one.dph_total:.3f}"))
    console.print(table)
    console.print(f"together ${sum(one.dph_total for one in found):.2f} per hour when all run")
