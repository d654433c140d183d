"""`stokerd panic`: stop the endpoints and destroy every instance that carries stoker's label, whatever else is broken.

It needs the marketplace and its key, nothing else: neither Temporal nor an engine has to answer.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from rich.console import Console
from rich.table import Table
from temporalio.client import Client
from temporalio.service import RPCError

from activities.messages import LABEL_PREFIX, read_label
from market.port import InstanceGone, Market, MarketError, RateLimited, Unauthorised
from run.faults import Fault
from run.settings import TemporalSettings
from run.temporal_server import connect
from stoker_wire.control import SIGNAL_UPDATE_CONFIG, WORKFLOW_TYPE
from stoker_wire.market import Instance

log = structlog.get_logger(__name__)

TEMPORAL_SECONDS_MAX = 5.0
DESTROY_SECONDS_MAX = 300.0
"""A real marketplace takes one destroy every few seconds."""
_AT_ONCE = 4
_PAUSE_SECONDS = 1.0
_STOPPED = {"endpoint_state": "stopped", "max_workers": 0}
"""An endpoint told so rents nothing again, whatever its workflow finds missing."""

WORD = "panic"
"""What a person types to confirm."""


@dataclass(frozen=True, slots=True)
class Panic:
    """What was done."""

    endpoints_stopped: tuple[str, ...]
    destroyed: tuple[int, ...]
    left: tuple[int, ...]
    """Instances that the marketplace still lists."""


async def run_panic(
    market: Market,
    temporal: TemporalSettings,
    *,
    endpoint: str | None,
    confirmed: Callable[[str], bool],
    console: Console,
) -> Panic:
    """List what would be destroyed, have it confirmed, stop the endpoints, destroy, and look again.

    Raises:
        Fault: the marketplace does not answer or does not know the key, or it was not confirmed.
    """
    found = await _ours(market, endpoint)
    _show(found, console)
    if found and not confirmed(f"{len(found)} instances will be destroyed with their disks. Type {WORD}: "):
        raise Fault("not confirmed; nothing was changed", exit_code=1)
    stopped = await _stop_endpoints(temporal, endpoint, console)
    destroyed: set[int] = set()
    deadline = time.monotonic() + DESTROY_SECONDS_MAX
    while found:
        await _destroy(market, found)
        destroyed |= {one.id for one in found}
        found = await _ours(market, endpoint)
        if found and time.monotonic() > deadline:
            break
        if found:
            await asyncio.sleep(_PAUSE_SECONDS)
    left = tuple(one.id for one in found)
    return Panic(stopped, tuple(sorted(destroyed - set(left))), left)


async def _ours(market: Market, endpoint: str | None) -> list[Instance]:
    """Instances with a label of ours, cheapest to keep last."""
    try:
        listed = await market.list(label_prefix=LABEL_PREFIX)
    except Unauthorised as fault:
        raise Fault(
            f"the marketplace does not know the key ({fault}); set STOKER_MARKET_KEY or VAST_API_KEY"
        ) from fault
    except MarketError as fault:
        raise Fault(
            f"the marketplace does not answer ({fault}); try again, or use its own console", exit_code=4
        ) from fault
    ours = []
    for instance in listed:
        label = read_label(instance.label)
        if label is not None and endpoint in {None, label[0]}:
            ours.append(instance)
    return sorted(ours, key=lambda one: -one.dph_total)


async def _stop_endpoints(
    temporal: TemporalSettings, endpoint: str | None, console: Console
) -> tuple[str, ...]:
    """Tell every endpoint's workflow that it is stopped; a Temporal that does not answer stops nobody from panicking."""
    try:
        client = await connect(temporal, wait_seconds_max=TEMPORAL_SECONDS_MAX)
        async with asyncio.timeout(TEMPORAL_SECONDS_MAX):
            return await _tell(client, endpoint)
    except (Fault, RPCError, TimeoutError) as fault:
        console.print(
            f"Temporal at {temporal.address} does not answer ({type(fault).__name__}): endpoints could not be stopped. "
            "Stop them before its worker runs again, or it rents anew.",
            style="yellow",
        )
        return ()


async def _tell(client: Client, endpoint: str | None) -> tuple[str, ...]:
    told = []
    query = f"WorkflowType = '{WORKFLOW_TYPE}' AND ExecutionStatus = 'Running'"
    async for execution in client.list_workflows(query):
        name = execution.id.removeprefix("endpoint/")
        if endpoint in {None, name}:
            await client.get_workflow_handle(execution.id).signal(SIGNAL_UPDATE_CONFIG, _STOPPED)
            told.append(name)
    return tuple(sorted(told))


async def _destroy(market: Market, found: Sequence[Instance]) -> None:
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


def _show(found: Sequence[Instance], console: Console) -> None:
    if not found:
        console.print("no instance carries stoker's label")
        return
    table = Table("instance", "endpoint", "machine", "status", "$/h", title="instances with stoker's label")
    for one in found:
        label = read_label(one.label)
        kind = f"{one.num_gpus}x {one.gpu_name or '?'}"
        name = label[0] if label else "?"
        table.add_row(str(one.id), name, kind, one.actual_status or "?", f"{one.dph_total:.3f}")
    console.print(table)
    console.print(f"together ${sum(one.dph_total for one in found):.2f} per hour when all run")
