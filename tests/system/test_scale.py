"""Thirty endpoints with ten workers each: no request is lost, and every urgent event gets a decision.
`benchmarks.scale` measures the times."""

import sys
from collections import Counter
from pathlib import Path

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from benchmarks.scale.__main__ import measure
from benchmarks.scale.checks import what_became_of_them
from stoker_wire.control import TASK_QUEUE, WORKFLOW_TYPE
from tests.system.conftest import until
from workflows.endpoint import EndpointWorkflow
from workflows.temporal_worker.converter import data_converter


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_nothing_is_lost_and_every_urgent_event_is_answered() -> None:
    found = await measure(30, 10, 15.0, settle=5.0)
    assert found.lost == []
    decided = Counter({kind: len(taken) for kind, taken in found.latencies.items()})
    assert decided["wake"] >= 1
    assert decided["grow"] >= 1
    assert decided["error"] >= 1
    assert decided["all"] == 12, "as many as happened"


async def test_of_endpoints_that_do_not_come_up_it_is_said_why() -> None:
    temporal = str(Path(sys.executable).parent / "temporal")
    async with await WorkflowEnvironment.start_local(
        data_converter=data_converter, dev_server_existing_path=temporal
    ) as env:
        client = env.client
        runner = UnsandboxedWorkflowRunner()
        async with Worker(
            client, task_queue=TASK_QUEUE, workflows=[EndpointWorkflow], workflow_runner=runner
        ):
            for name in ("a", "b"):
                with pytest.raises(WorkflowFailureError):
                    await client.execute_workflow(
                        WORKFLOW_TYPE, {"endpoint_name": name}, id=f"endpoint/{name}", task_queue=TASK_QUEUE
                    )
        await client.start_workflow(WORKFLOW_TYPE, {}, id="endpoint/c", task_queue="nobody's")
        said = ""

        async def listed() -> bool:
            nonlocal said
            said = await what_became_of_them(client)
            return "2 FAILED" in said and "1 RUNNING" in said

        await until(listed, what="Temporal lists all three as they stand")
    assert "endpoint/a" in said
    assert "endpoint_id" in said, "the workflow's own sentence"
