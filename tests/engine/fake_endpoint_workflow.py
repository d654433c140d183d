"""A stand-in for an endpoint's workflow: the test scripts its memo, and it records the batches of engines."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ApplicationError

from stoker_wire.control import EndpointSpec, WorkerChange
from stoker_wire.messages import MEMO_KEY, EndpointMemo, MetricsBatch

FLEET_CHANGED_AT = SearchAttributeKey.for_datetime("FleetChangedAt")


@workflow.defn(name="EndpointWorkflow")
class FakeEndpointWorkflow:
    """Publishes the scripted memo and records received batches."""

    @workflow.init
    def __init__(self, spec: EndpointSpec) -> None:
        self.memo = EndpointMemo(
            id=spec.endpoint_id,
            name=spec.endpoint_name,
            owner=spec.owner,
            config=spec.config.model_dump(mode="json", exclude_defaults=True),
            created_at=spec.created_at,
        )
        self.batches: list[dict[str, Any]] = []
        self.changes: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []
        self.ended = False

    @workflow.run
    async def run(self, spec: EndpointSpec) -> None:
        self._publish()
        await workflow.wait_condition(lambda: self.ended)

    @workflow.signal
    def script(self, changes: dict[str, Any]) -> None:
        """Change the memo."""
        self.memo = EndpointMemo.model_validate(self.memo.model_dump() | changes)
        self._publish()

    @workflow.signal
    def end(self) -> None:
        """Complete, as after a delete."""
        self.ended = True

    @workflow.signal
    def report_metrics(self, batch: dict[str, Any]) -> None:
        """Record the batch."""
        self.batches.append(MetricsBatch.model_validate(batch).model_dump(mode="json"))

    @workflow.query
    def received(self) -> list[dict[str, Any]]:
        """Every batch, in order."""
        return self.batches

    @workflow.update
    def change_worker(self, change: dict[str, Any]) -> None:
        """Record the action."""
        self.changes.append(WorkerChange.model_validate(change).model_dump(mode="json"))

    @change_worker.validator
    def _check_change(self, change: dict[str, Any]) -> None:
        if change["action"] == "reboot":
            raise ApplicationError("worker is LOADING, it cannot be rebooted <b>now</b>", type="not_possible")

    @workflow.query
    def changed(self) -> list[dict[str, Any]]:
        """Every action on a worker, in order."""
        return self.changes

    @workflow.query
    def decisions(self, tail: int = 50) -> list[dict[str, Any]]:
        """The decision log as scripted."""
        return self.lines[-tail:]

    @workflow.signal
    def log(self, line: dict[str, Any]) -> None:
        """Add a line to the decision log."""
        self.lines.append({"at": workflow.time(), **line})

    def _publish(self) -> None:
        now = workflow.time()
        self.memo = self.memo.model_copy(update={"changed_at": now})
        workflow.upsert_memo({MEMO_KEY: self.memo.model_dump(mode="json", exclude_defaults=True)})
        workflow.upsert_search_attributes([FLEET_CHANGED_AT.value_set(datetime.fromtimestamp(now, UTC))])


async def until(condition: Any, what: str, *, seconds: float = 15.0) -> Any:
    """Wait for a sync or async condition for a bounded time; returns its first true value."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                value = condition()
                if asyncio.iscoroutine(value):
                    value = await value
                if value:
                    return value
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what}") from None
