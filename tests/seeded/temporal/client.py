"""The part of `temporalio.client` that engines and operators use."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import temporalio.common
import temporalio.workflow
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import WorkflowExecutionStatus

from stoker_wire.messages import MEMO_KEY

if TYPE_CHECKING:
    from tests.seeded.temporal.server import Server


@dataclass(frozen=True, slots=True)
class Seen:
    """An execution as a list or a description shows it."""

    id: str
    status: WorkflowExecutionStatus
    run_id: str
    _memo: dict[str, Any]

    @property
    def typed_search_attributes(self) -> temporalio.common.TypedSearchAttributes:
        """None: lists of this server do not need them."""
        return temporalio.common.TypedSearchAttributes.empty

    @property
    def raw_description(self) -> DescribeWorkflowExecutionResponse:
        """Workflow tasks never wait here."""
        return DescribeWorkflowExecutionResponse()

    async def memo_value(self, key: str, default: Any = None) -> Any:
        return self._memo.get(key, default)

    async def memo(self) -> dict[str, Any]:
        return self._memo


@dataclass(frozen=True, slots=True)
class Handle:
    """The used part of `WorkflowHandle`."""

    server: "Server"
    id: str

    async def signal(
        self, name: str, arg: Any = temporalio.common._arg_unset, *, args: Any = (), rpc_timeout: Any = None
    ) -> None:
        answer = await self.server.rpc()
        sent = list(args) if arg is temporalio.common._arg_unset else [arg]
        self.server.signal(self.id, name, sent)
        answer()

    async def describe(self, *, rpc_timeout: Any = None) -> Seen:
        answer = await self.server.rpc()
        execution = self.server.found(self.id)
        answer()
        return Seen(execution.id, execution.status, execution.run.id, dict(execution.memo))

    async def execute_update(self, name: str, arg: Any = temporalio.common._arg_unset, **_: Any) -> Any:
        await self.server.rpc()
        return await self.server.update(self.id, name, [] if arg is temporalio.common._arg_unset else [arg])

    async def query(self, name: str, *args: Any, **_: Any) -> Any:
        await self.server.rpc()
        return self.server.query(self.id, name, list(args))


@dataclass(frozen=True, slots=True)
class Client:
    """The used part of `temporalio.client.Client`."""

    server: "Server"

    def get_workflow_handle(self, workflow_id: str, **_: Any) -> Handle:
        return Handle(self.server, workflow_id)

    async def start_workflow(self, run: Any, arg: Any, *, id: str, **_: Any) -> Handle:  # noqa: A002
        defn = temporalio.workflow._Definition.must_from_run_fn(run)
        self.server.start(str(defn.name), id, arg)
        return Handle(self.server, id)

    async def list_workflows(self, query: str, **_: Any) -> AsyncIterator[Seen]:
        """Executions with a memo. Of the query's conditions, `ExecutionStatus` and `FleetChangedAt` are applied."""
        statuses = {each.upper() for each in re.findall(r"ExecutionStatus = '(\w+)'", query)}
        answer = await self.server.rpc()
        seen_at = self.server.now() - self.server.weather.visibility_seconds
        since = None
        if "FleetChangedAt >" in query:
            since = datetime.fromisoformat(
                query.split("FleetChangedAt > '")[1].split("'", maxsplit=1)[0]
            ).timestamp()
        for execution in list(self.server.executions.values()):
            shown = [each for each in execution.shown if each[0] <= seen_at]
            if not shown:
                continue
            _, memo, status = shown[-1]
            if statuses and status.name.replace("_", "") not in statuses:
                continue
            if MEMO_KEY not in memo or (since is not None and memo[MEMO_KEY].get("changed_at", 0.0) <= since):
                continue
            yield Seen(execution.id, status, execution.run.id, memo)
        answer()
