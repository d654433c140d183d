"""Polls Temporal for endpoints and their memos, and keeps the directory current."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from pydantic import ValidationError
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus
from temporalio.common import SearchAttributeKey

from engine.routing.directory import Directory
from engine.settings import Timing
from engine.temporal.rpc_errors import TEMPORAL_FAULTS, is_gone, rpc_error_text
from stoker_wire.control import SWEEP_ID, WORKFLOW_TYPE, workflow_id
from stoker_wire.messages import FOREIGN_KEY, MEMO_KEY, EndpointMemo, ForeignInstances

log = structlog.get_logger("engine.temporal.endpoint_watcher")

_CLOSED = frozenset(
    {
        WorkflowExecutionStatus.COMPLETED,
        WorkflowExecutionStatus.FAILED,
        WorkflowExecutionStatus.CANCELED,
        WorkflowExecutionStatus.TERMINATED,
        WorkflowExecutionStatus.TIMED_OUT,
    }
)
_RUNNING = "WorkflowType = '{type}' AND ExecutionStatus = 'Running'"
_CHANGED = "WorkflowType = '{type}' AND FleetChangedAt > '{since}'"
_NEVER = 0.0
_PROBLEMS = SearchAttributeKey.for_keyword_list("TemporalReportedProblems")
_IDENTITY = frozenset({"id", "name", "owner", "config"})
"""Memo fields without which an endpoint cannot be shown, because its owner would be unknown."""

PAGE_SIZE = 100
"""A page costs the server tens of milliseconds and the engine ten; both do other work between two pages."""


class EndpointWatcher:
    """Polls once a second for changes, and for everything at the start and once a minute.

    A failed poll changes nothing: routing continues with the last known state, and readiness reports its age.
    """

    def __init__(
        self,
        client: Client,
        directory: Directory,
        *,
        timing: Timing,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._directory = directory
        self._timing = timing
        self._now = now
        self._started_at = now()
        self._changed_at = _NEVER
        self._full_at = _NEVER
        self._unreadable: dict[str, str] = {}
        """Faults of memos by workflow id."""
        self.polled_at = _NEVER
        """When the last poll succeeded, Unix seconds."""
        self.failures = 0
        self.last_error = ""
        self.foreign: ForeignInstances | None = None
        """Instances of other deployments on this marketplace account; None: the sweep has not published them."""

    @property
    def has_read_all(self) -> bool:
        """Whether the first full poll has succeeded."""
        return self._full_at > _NEVER

    def silent_seconds(self) -> float:
        """How long Temporal has not answered."""
        return self._now() - max(self.polled_at, self._started_at)

    def is_stale(self) -> bool:
        """Whether the last successful poll is too old for the engine to be ready."""
        return self._now() - self.polled_at > self._timing.watch_stale_seconds

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await self.poll()
            await asyncio.sleep(self._timing.watch_seconds)

    async def poll(self) -> bool:
        """Poll once; False if Temporal did not answer."""
        started = self._now()
        full = started - self._full_at >= self._timing.watch_full_seconds
        try:
            await (self._poll_all(started) if full else self._poll_changes(started))
        except TEMPORAL_FAULTS as fault:
            self.failures += 1
            error = rpc_error_text(fault)
            if error != self.last_error:
                log.warning("temporal_poll_failed", error=error, endpoints_known=len(self._directory))
            self.last_error = self._directory.read_error = error
            return False
        if self.last_error:
            log.info("temporal_poll_recovered", failures=self.failures)
        self.polled_at, self.last_error = self._now(), ""
        self._directory.read_error, self._directory.complete = "", True
        return True

    async def refresh(self, endpoint_name: str) -> bool:
        """Read one endpoint's memo now, so that callers see their own changes; False if its workflow is closed.

        Raises:
            RPCError or another of TEMPORAL_FAULTS: Temporal does not answer.
        """
        handle = self._client.get_workflow_handle(workflow_id(endpoint_name))
        try:
            described = await handle.describe(rpc_timeout=timedelta(seconds=5))
        except TEMPORAL_FAULTS as fault:
            if not is_gone(fault):
                raise
            self._drop_closed(endpoint_name, None)
            return False
        memo = await self._memo_of(described)
        if described.status in _CLOSED:
            self._drop_closed(endpoint_name, memo)
            return False
        if memo is not None:
            self._directory.apply(memo, self._now())
        return memo is not None

    async def _poll_all(self, started: float) -> None:
        running = set()
        async for execution in self._client.list_workflows(
            _RUNNING.format(type=WORKFLOW_TYPE), page_size=PAGE_SIZE, rpc_timeout=timedelta(seconds=10)
        ):
            running.add(execution.id)
            await self._apply(execution)
            self._note_problems(execution)
        # Visibility lags and is empty while an index is rebuilt. Only the workflow itself tells whether it is closed.
        for missing in [each.name for each in self._directory if each.workflow_id not in running]:
            await self.refresh(missing)
        await self._poll_sweep()
        self._full_at = started

    async def _poll_sweep(self) -> None:
        handle = self._client.get_workflow_handle(SWEEP_ID)
        try:
            memo = await (await handle.describe(rpc_timeout=timedelta(seconds=5))).memo()
            value = memo.get(FOREIGN_KEY)
            self.foreign = ForeignInstances.model_validate(value) if value is not None else None
        except ValidationError:
            self.foreign = None
        except TEMPORAL_FAULTS as fault:
            if not is_gone(fault):
                raise
            self.foreign = None

    async def _poll_changes(self, started: float) -> None:
        # `changed_at` is the workflows' clock: a clock skew between the machines must not hide a change.
        since = min(self._changed_at, started) - self._timing.watch_overlap_seconds
        query = _CHANGED.format(
            type=WORKFLOW_TYPE, since=datetime.fromtimestamp(max(since, 0.0), UTC).isoformat()
        )
        async for execution in self._client.list_workflows(query, rpc_timeout=timedelta(seconds=5)):
            if execution.status is WorkflowExecutionStatus.RUNNING:
                await self._apply(execution)
            elif execution.status in _CLOSED:
                memo = await self._memo_of(execution)
                if memo is not None:
                    self._drop_closed(memo.name, memo)

    async def _apply(self, execution: WorkflowExecution) -> None:
        """Apply one endpoint's memo. A fault of one memo must not hide the other endpoints."""
        memo = await self._memo_of(execution)
        if memo is None:
            return
        self._changed_at = max(self._changed_at, memo.changed_at)
        known = self._directory.with_id(memo.id)
        try:
            endpoint = self._directory.apply(memo, self._now())
        except Exception as fault:  # noqa: BLE001 - one endpoint must not hide the others
            self._note_unreadable(execution, error=f"{type(fault).__name__}: {fault}"[:200])
            return
        endpoint.fault = self._unreadable.get(execution.id, "")
        if known is None:
            log.info("endpoint_found", endpoint=memo.name, members=len(memo.members))

    def _note_problems(self, execution: WorkflowExecution) -> None:
        """Temporal (server 1.30 and later) marks workflows whose tasks fail repeatedly."""
        problems = execution.typed_search_attributes.get(_PROBLEMS)
        endpoint = self._directory.named(execution.id.removeprefix(workflow_id("")))
        if problems and endpoint is not None:
            names = ", ".join(problems)
            endpoint.fault = f"its workflow makes no progress ({names}); see the how-to on operation"

    async def _memo_of(self, execution: WorkflowExecution) -> EndpointMemo | None:
        try:
            value: Any = await execution.memo_value(MEMO_KEY, None)
            if value is None:
                return None
            memo, omitted = read_valid_parts(value)
            if not omitted:
                self._unreadable.pop(execution.id, None)
            else:
                self._note_unreadable(execution, omitted=omitted)
            return memo
        except ValidationError as fault:
            self._note_unreadable(execution, fields=fault.error_count())
        except Exception as fault:  # noqa: BLE001 - the memo may need another codec; it must not hide the others
            self._note_unreadable(execution, error=str(fault)[:200])
        return None

    def _note_unreadable(self, execution: WorkflowExecution, **details: Any) -> None:
        if execution.id not in self._unreadable:
            log.error("memo_unreadable", workflow=execution.id, **details)
        text = ", ".join(f"{name}: {value}" for name, value in details.items())
        self._unreadable[execution.id] = f"parts of its memo cannot be read ({text})"[:300]

    def _drop_closed(self, endpoint_name: str, memo: EndpointMemo | None) -> None:
        endpoint = self._directory.named(endpoint_name)
        if endpoint is not None and (memo is None or memo.id == endpoint.id):
            self._directory.drop(endpoint)
            log.info("endpoint_gone", endpoint=endpoint_name)


def read_valid_parts(value: Any) -> tuple[EndpointMemo, tuple[str, ...]]:
    """A memo without the members and fields that cannot be read, and the names of those.

    Raises:
        ValidationError: the endpoint's identity cannot be read.
    """
    try:
        return EndpointMemo.model_validate(value), ()
    except ValidationError as fault:
        faults = {
            error["loc"][:2] if error["loc"][:1] == ("members",) else error["loc"][:1]
            for error in fault.errors()
        }
        if not isinstance(value, dict) or any(not path or path[0] in _IDENTITY for path in faults):
            raise
        bad = {path[1] for path in faults if len(path) == 2}
        kept = {name: each for name, each in value.items() if (name,) not in faults}
        if bad and "members" in kept:
            kept["members"] = [each for number, each in enumerate(kept["members"]) if number not in bad]
        names = sorted(".".join(map(str, path)) for path in faults)
        return EndpointMemo.model_validate(kept), tuple(names[:8])
