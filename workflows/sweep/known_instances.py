"""Instances that endpoints' workflows know, read from their memos: a label may be edited, and a list may lack them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from pydantic import ValidationError
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from stoker_wire.control import WORKFLOW_TYPE
from stoker_wire.messages import MEMO_KEY, EndpointMemo

ENDED_DAYS = 7.0
"""How long endpoints that ended without releasing their workers are examined."""
_RPC = timedelta(seconds=10)
_RUNNING = f"WorkflowType = '{WORKFLOW_TYPE}' AND ExecutionStatus = 'Running'"
_BROKEN = " OR ".join(
    f"ExecutionStatus = '{each}'" for each in ("Terminated", "Failed", "TimedOut", "Canceled")
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class KnownInstances:
    """Instance ids, by the name of the endpoint whose worker they are."""

    running: dict[str, frozenset[int]]
    """Of endpoints whose workflow runs."""
    ended: dict[str, frozenset[int]]
    """Of workflows that were terminated, failed or cancelled; without those that a running endpoint has."""


async def known_instances(client: Client, now: float) -> KnownInstances:
    """The instances of all endpoints of the namespace. Completed deletions have released theirs and are left out.

    Raises:
        RPCError: Temporal does not answer.
    """
    running: dict[str, frozenset[int]] = {}
    ended: dict[str, frozenset[int]] = {}
    async for execution in client.list_workflows(_RUNNING, rpc_timeout=_RPC):
        await _add(running, execution)
    since = datetime.fromtimestamp(now - ENDED_DAYS * 86_400, UTC).isoformat()
    broken = f"WorkflowType = '{WORKFLOW_TYPE}' AND CloseTime > '{since}' AND ({_BROKEN})"
    async for execution in client.list_workflows(broken, rpc_timeout=_RPC):
        await _add(ended, execution)
    in_use = frozenset[int]().union(*running.values())
    return KnownInstances(running, {name: ids - in_use for name, ids in ended.items() if ids - in_use})


async def instances_of_workflow(client: Client, workflow: str, *, if_running: bool = False) -> frozenset[int]:
    """The instances in the memo of the newest workflow of this id; empty if it completed or does not exist.

    `if_running`: empty unless it runs. A description does not lag, unlike a list of workflows.

    Raises:
        RPCError: Temporal does not answer.
    """
    try:
        found = await client.get_workflow_handle(workflow).describe(rpc_timeout=_RPC)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return frozenset()
        raise
    states = WorkflowExecutionStatus
    if found.status is states.COMPLETED or (if_running and found.status is not states.RUNNING):
        return frozenset()
    known: dict[str, frozenset[int]] = {}
    await _add(known, found)
    return frozenset[int]().union(*known.values())


async def _add(known: dict[str, frozenset[int]], execution: WorkflowExecution) -> None:
    try:
        memo = EndpointMemo.model_validate(await execution.memo_value(MEMO_KEY, None))
    except ValidationError:
        log.warning("memo_unreadable", workflow=execution.id)
        return
    ids = frozenset(member.i for member in memo.members if member.i)
    known[memo.name] = known.get(memo.name, frozenset()) | ids
