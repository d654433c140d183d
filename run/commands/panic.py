"""`stokerd panic`: stop the endpoints and destroy every instance of this deployment, whatever else is broken.

It needs the marketplace, its key and the deployment's identity: neither Temporal nor an engine has to answer.
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
from market.ownership import LABEL_PREFIX, DeploymentMarket, count_by_deployment
from market.port import InstanceGone, MarketError, RateLimited, Unauthorised
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
_ANSWER = timedelta(seconds=10)
DESTROY_SECONDS_MAX = 300.0
"""A real marketplace takes one destroy every few seconds."""
_AT_ONCE = 4
_PAUSE_SECONDS = 1.0
_STOPPED = {"endpoint_state": "stopped", "max_workers": 0}
"""An endpoint told so rents nothing again, whatever its workflow finds missing."""

WORD = "panic"
"""What a person types to confirm."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """Endpoints that were told to stop."""

    names: tuple[str, ...]
    fault: str
    """The reason why others were not; empty: all were."""


@dataclass(frozen=True, slots=True)
class Panic:
    """What was done."""

    endpoints: Stopped
    destroyed: tuple[int, ...]
    left: tuple[int, ...]
    """Instances that the marketplace still lists."""

    def faults(self) -> list[str]:
        """What a person still has to do."""
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
    target: Target, state_dir: Path, wanted: str | None, console: Console
) -> tuple[str, Client | None]:
    """The deployment's identity, and a client of its Temporal; None if that does not answer.

    `wanted`: the identity, where a person gives it; else Temporal tells it, else the state folder.

    Raises:
        CommandError: the identity is not known.
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
    if wanted is not None and wanted != found:
        require_identity(wanted, "--deployment")
        if found is not None:
            console.print(f"this Temporal carries the deployment {found}: its endpoints are not stopped")
        return wanted, None
    if found is None:
        raise CommandError(
            "which deployment? Temporal does not answer, and the state folder keeps no identity for it; "
            "give --deployment (stokerd tells it at each start, and it stands in the labels)",
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
    """List what would be destroyed, have it confirmed, stop the endpoints, destroy, and look again.

    `client`: of the deployment's Temporal; None if it does not answer.

    Raises:
        CommandError: the marketplace does not answer or does not know the key, or it was not confirmed.
    """
    found = [*await _ours(market, endpoint, console), *await _by_id(market, client, endpoint, console)]
    _show(found, market.deployment, console)
    if found and not confirmed(f"{len(found)} instances will be destroyed with their disks. Type {WORD}: "):
        raise CommandError("not confirmed; nothing was changed", exit_code=1)
    stopped = await _stop_endpoints(client, endpoint)
    destroyed: set[int] = set()
    deadline = time.monotonic() + DESTROY_SECONDS_MAX
    found = list({one.id: one for one in found}.values())
    while found:
        await _destroy(market, found)
        destroyed |= {one.id for one in found}
        found = [*await _ours(market, endpoint), *await _by_id(market, client, endpoint)]
        if found and time.monotonic() > deadline:
            break
        if found:
            await asyncio.sleep(_PAUSE_SECONDS)
    left = tuple(one.id for one in found)
    return Panic(stopped, tuple(sorted(destroyed - set(left))), left)


async def _ours(
    market: DeploymentMarket, endpoint: str | None, console: Console | None = None
) -> list[Instance]:
    """This deployment's instances, the dearest first. `console` is told of the others."""
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
    """Instances that endpoints' workflows know and that the list lacks: their label was edited, or it is incomplete."""
    if client is None:
        return []
    try:
        known = await known_instances(client, time.time())
        listed = {one.id for one in await market.list(label_prefix=LABEL_PREFIX)}
    except (RPCError, MarketError) as fault:
        if console is not None:
            console.print(
                f"instances are found by their labels alone ({fault})", style="yellow", markup=False
            )
        return []
    names = (known.running, known.ended)
    ids = {i for ids in names for name, some in ids.items() if endpoint in {None, name} for i in some}
    turn = asyncio.Semaphore(_AT_ONCE)

    async def look(instance_id: int) -> Instance | None:
        async with turn:
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
    """Tell every endpoint's workflow that it is stopped. Instances are destroyed even if Temporal does not answer."""
    if client is None:
        return Stopped((), "Temporal does not answer")
    try:
        async with asyncio.timeout(STOP_SECONDS_MAX):
            return await _tell(client, endpoint)
    except (RPCError, TimeoutError) as fault:
        return Stopped((), str(fault) or f"Temporal did not answer within {STOP_SECONDS_MAX:.0f} s")


async def _tell(client: Client, endpoint: str | None) -> Stopped:
    query = f"WorkflowType = '{WORKFLOW_TYPE}' AND ExecutionStatus = 'Running'"
    turn = asyncio.Semaphore(_AT_ONCE)
    told: list[str] = []
    failed: list[str] = []

    async def tell(workflow: str, name: str) -> None:
        async with turn:
            try:
                handle = client.get_workflow_handle(workflow)
                await handle.signal(UPDATE_CONFIG, _STOPPED, rpc_timeout=_ANSWER)
            except RPCError as fault:
                if fault.status is not RPCStatusCode.NOT_FOUND:  # it has ended since
                    failed.append(f"{name} ({fault.status.name})")
            else:
                told.append(name)

    running = [
        (execution.id, execution.id.removeprefix("endpoint/"))
        async for execution in client.list_workflows(query, rpc_timeout=_ANSWER)
    ]
    await asyncio.gather(*(tell(*one) for one in running if endpoint in {None, one[1]}))
    return Stopped(tuple(sorted(told)), "; ".join(failed))


async def _destroy(market: DeploymentMarket, found: Sequence[Instance]) -> None:
    """One try for each; what fails is seen at the next look."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(instance: Instance) -> None:
        async with turn:
            try:
                await market.destroy(instance.id)
            except InstanceGone:
                return
            except RateLimited as limit:
                await asyncio.sleep(min(limit.retry_after_s or _PAUSE_SECONDS, 30.0))
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
