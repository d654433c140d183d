"""The watch on Temporal: which endpoints there are, and what their workflows say in their memos."""

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
"""Without these of its memo an endpoint cannot be shown: whose it is would be a guess."""

PAGE_SIZE = 100
"""A page costs the server tens of milliseconds and this engine ten; both do something else before the next."""


class EndpointWatcher:
    """Looks every second at what changed, and at everything at the start and once a minute.

    A look that fails changes nothing: routing goes on with what is known, and readiness says how old that is.
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
        self._changed_at = _NEVER
        self._full_at = _NEVER
        self._unreadable: dict[str, str] = {}
        """Faults of memos, by workflow id."""
        self.looked_at = _NEVER
        """When the last look succeeded."""
        self.failures = 0
        self.last_error = ""
        self.foreign: ForeignInstances | None = None
        """Instances of other deployments on this marketplace account; None: the sweep has not told."""

    @property
    def knows_all(self) -> bool:
        """Whether the first full look has been made."""
        return self._full_at > _NEVER

    def stale(self) -> bool:
        """Whether Temporal has not answered for too long."""
        return self._now() - self.looked_at > self._timing.watch_stale_seconds

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(self._timing.watch_seconds)

    async def look(self) -> bool:
        """One look; False when Temporal did not answer."""
        started = self._now()
        full = started - self._full_at >= self._timing.watch_full_seconds
        try:
            await (self._look_at_all(started) if full else self._look_at_changes(started))
        except TEMPORAL_FAULTS as fault:
            self.failures += 1
            words = rpc_error_text(fault)
            if words != self.last_error:
                log.warning("watch_failed", error=words, endpoints_known=len(self._directory))
            self.last_error = self._directory.unread = words
            return False
        if self.last_error:
            log.info("watch_recovered", failures=self.failures)
        self.looked_at, self.last_error = self._now(), ""
        self._directory.unread, self._directory.complete = "", True
        return True

    async def refresh(self, endpoint_name: str) -> bool:
        """Read one endpoint's memo now, so that a caller reads what it wrote; False if its workflow is closed.

        Raises:
            RPCError or another of TEMPORAL_FAULTS: Temporal does not answer.
        """
        handle = self._client.get_workflow_handle(workflow_id(endpoint_name))
        try:
            described = await handle.describe(rpc_timeout=timedelta(seconds=5))
        except TEMPORAL_FAULTS as fault:
            if not is_gone(fault):
                raise
            self._closed(endpoint_name, None)
            return False
        if described.status in _CLOSED:
            self._closed(endpoint_name, await self._memo_of(described))
            return False
        memo = await self._memo_of(described)
        if memo is not None:
            self._directory.apply(memo, self._now())
        return memo is not None

    async def _look_at_all(self, started: float) -> None:
        living = set()
        async for execution in self._client.list_workflows(
            _RUNNING.format(type=WORKFLOW_TYPE), page_size=PAGE_SIZE, rpc_timeout=timedelta(seconds=10)
        ):
            living.add(execution.id)
            await self._take(execution)
            self._note_problems(execution)
        # The list lags, and one of an index that is being rebuilt is empty: whether a workflow is gone it says itself.
        for missing in [each.name for each in self._directory if each.workflow_id not in living]:
            await self.refresh(missing)
        await self._look_at_sweep()
        self._full_at = started

    async def _look_at_sweep(self) -> None:
        handle = self._client.get_workflow_handle(SWEEP_ID)
        try:
            told = (await (await handle.describe(rpc_timeout=timedelta(seconds=5))).memo()).get(FOREIGN_KEY)
            self.foreign = ForeignInstances.model_validate(told) if told is not None else None
        except ValidationError:
            self.foreign = None
        except TEMPORAL_FAULTS as fault:
            if not is_gone(fault):
                raise
            self.foreign = None

    async def _look_at_changes(self, started: float) -> None:
        # The workflows' own clock counts, not ours: a skew between the machines must not hide a change.
        since = min(self._changed_at, started) - self._timing.watch_overlap_seconds
        query = _CHANGED.format(
            type=WORKFLOW_TYPE, since=datetime.fromtimestamp(max(since, 0.0), UTC).isoformat()
        )
        async for execution in self._client.list_workflows(query, rpc_timeout=timedelta(seconds=5)):
            if execution.status is WorkflowExecutionStatus.RUNNING:
                await self._take(execution)
            elif execution.status in _CLOSED:
                memo = await self._memo_of(execution)
                if memo is not None:
                    self._closed(memo.name, memo)

    async def _take(self, execution: WorkflowExecution) -> None:
        """Takes one endpoint's memo over. Whatever is wrong with it, the others are taken."""
        memo = await self._memo_of(execution)
        if memo is None:
            return
        self._changed_at = max(self._changed_at, memo.changed_at)
        known = self._directory.with_id(memo.id)
        try:
            endpoint = self._directory.apply(memo, self._now())
        except Exception as fault:  # noqa: BLE001 - one endpoint must not hide the others
            self._skip(execution, error=f"{type(fault).__name__}: {fault}"[:200])
            return
        endpoint.fault = self._unreadable.get(execution.id, "")
        if known is None:
            log.info("endpoint_found", endpoint=memo.name, members=len(memo.members))

    def _note_problems(self, execution: WorkflowExecution) -> None:
        """Temporal's own mark of a workflow whose tasks fail one after the other (server 1.30 and later)."""
        problems = execution.typed_search_attributes.get(_PROBLEMS)
        endpoint = self._directory.named(execution.id.removeprefix(workflow_id("")))
        if problems and endpoint is not None:
            said_by_temporal = ", ".join(problems)
            endpoint.fault = (
                f"its workflow makes no progress ({said_by_temporal}); see the how-to on operation"
            )

    async def _memo_of(self, execution: WorkflowExecution) -> EndpointMemo | None:
        try:
            value: Any = await execution.memo_value(MEMO_KEY, None)
            if value is None:
                return None
            memo, left_out = read_what_can_be_read(value)
            if not left_out:
                self._unreadable.pop(execution.id, None)
            else:
                self._skip(execution, left_out=left_out)
            return memo
        except ValidationError as fault:
            self._skip(execution, fields=fault.error_count())
        except Exception as fault:  # noqa: BLE001 - it was written by another codec: one memo must not hide the others
            self._skip(execution, error=str(fault)[:200])
        return None

    def _skip(self, execution: WorkflowExecution, **why: Any) -> None:
        if execution.id not in self._unreadable:
            log.error("memo_unreadable", workflow=execution.id, **why)
        words = ", ".join(f"{name}: {value}" for name, value in why.items())
        self._unreadable[execution.id] = f"its memo could not be read whole ({words})"[:300]

    def _closed(self, endpoint_name: str, memo: EndpointMemo | None) -> None:
        endpoint = self._directory.named(endpoint_name)
        if endpoint is not None and (memo is None or memo.id == endpoint.id):
            self._directory.drop(endpoint)
            log.info("endpoint_gone", endpoint=endpoint_name)


def read_what_can_be_read(value: Any) -> tuple[EndpointMemo, tuple[str, ...]]:
    """A memo without the members and fields that cannot be read, and what those were.

    Raises:
        ValidationError: even its identity cannot be read.
    """
    try:
        return EndpointMemo.model_validate(value), ()
    except ValidationError as fault:
        places = {
            error["loc"][:2] if error["loc"][:1] == ("members",) else error["loc"][:1]
            for error in fault.errors()
        }
        if not isinstance(value, dict) or any(not place or place[0] in _IDENTITY for place in places):
            raise
        bad = {place[1] for place in places if len(place) == 2}
        kept = {name: each for name, each in value.items() if (name,) not in places}
        if bad and "members" in kept:
            kept["members"] = [each for number, each in enumerate(kept["members"]) if number not in bad]
        named = sorted(".".join(map(str, place)) for place in places)
        return EndpointMemo.model_validate(kept), tuple(named[:8])
