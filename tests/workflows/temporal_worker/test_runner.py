"""Workflows run in the SDK's sandbox; what their payloads belong to makes no difference to how they are converted."""

import pytest
from temporalio import workflow
from temporalio.client import WorkflowFailureError
from temporalio.converter import WithSerializationContext
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from workflows.temporal_worker.converter import data_converter
from workflows.temporal_worker.runner import workflow_runner


def test_nothing_that_converts_asks_to_what_a_payload_belongs():
    """The runner gives every payload the same context, so no codec or store may depend on it."""
    assert data_converter.payload_codec is None
    assert data_converter.external_storage is None
    for each in (data_converter.payload_converter, data_converter.failure_converter):
        assert not isinstance(each, WithSerializationContext) or each.with_context(None) is each


@workflow.defn
class Reaches:
    """A workflow that does what none may."""

    @workflow.run
    async def run(self) -> str:
        try:
            return open(__file__).read()  # noqa: ASYNC230, PTH123
        except Exception as fault:  # noqa: BLE001
            raise ApplicationError(f"{type(fault).__name__}: {fault}", non_retryable=True) from None


async def test_the_sandbox_still_keeps_workflows_from_the_world(server: WorkflowEnvironment):
    async with Worker(
        server.client, task_queue="reaches", workflows=[Reaches], workflow_runner=workflow_runner()
    ):
        with pytest.raises(WorkflowFailureError) as ended:
            await server.client.execute_workflow(Reaches.run, id="reaches", task_queue="reaches")
    assert "RestrictedWorkflowAccessError" in str(ended.value.cause)
