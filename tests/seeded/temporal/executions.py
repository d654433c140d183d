"""Records of the Temporal server: its behaviour, workflow runs, and one activation with its result."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import temporalio.bridge.proto.workflow_activation as wa
from temporalio.bridge.proto.workflow_commands import WorkflowCommand
from temporalio.client import WorkflowExecutionStatus
from temporalio.worker._workflow_instance import WorkflowInstance

from workflows.temporal_worker.converter import data_converter

PAYLOADS = data_converter.payload_converter
FAILURES = data_converter.failure_converter


class NotReplayed(AssertionError):
    """A replay gave other commands than the history."""


class TaskFailed(AssertionError):
    """Workflow code raised: on a real server the workflow would wait for a repaired build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """Latency and reliability of Temporal in this world."""

    rpc_seconds: float = 0.01
    task_seconds: float = 0.01
    local_seconds: float = 0.02
    visibility_seconds: float = 0.1
    """Age of lists, seconds."""
    rpc_lost: float = 0.0
    """Share of calls that fail; half of them after their work was done."""
    evicted: float = 0.0
    """Share of workflow tasks after which the worker evicts the workflow."""
    calls_per_second: float = 2.0
    """Rate of the marketplace's task queue, activities per second."""


@dataclass(slots=True)
class Step:
    """One activation and its result."""

    activation: wa.WorkflowActivation
    commands: list[WorkflowCommand]


@dataclass(slots=True)
class Run:
    """One run of a workflow."""

    id: str
    workflow_id: str
    workflow_type: str
    init: wa.InitializeWorkflow
    started_at: float
    attributes: dict[str, Any] = field(default_factory=dict)
    instance: WorkflowInstance | None = None
    inbox: list[wa.WorkflowActivationJob] = field(default_factory=list)
    history: list[Step] = field(default_factory=list)
    events: int = 1
    timers: dict[int, asyncio.TimerHandle] = field(default_factory=dict)
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    closed: str = ""
    updates: dict[str, "asyncio.Future[Any]"] = field(default_factory=dict)
    driver: "asyncio.Task[None] | None" = None
    under_way: bool = False


@dataclass(slots=True)
class Execution:
    """A workflow id and its runs; lists show it with a delay."""

    id: str
    runs: list[Run]
    memo: dict[str, Any] = field(default_factory=dict)
    status: WorkflowExecutionStatus = WorkflowExecutionStatus.RUNNING
    result: Any = None
    shown: list[tuple[float, dict[str, Any], WorkflowExecutionStatus]] = field(default_factory=list)

    @property
    def run(self) -> Run:
        return self.runs[-1]


def activate(instance: WorkflowInstance, activation: wa.WorkflowActivation) -> Any:
    """A workflow has its own event loop; a real worker runs it in a thread."""
    loop = asyncio.get_running_loop()
    try:
        return instance.activate(activation)
    finally:
        asyncio._set_running_loop(loop)


def commands_of(instance: WorkflowInstance, activation: wa.WorkflowActivation) -> list[WorkflowCommand]:
    completion = activate(instance, activation)
    if completion.HasField("failed"):
        failure = completion.failed.failure
        raise TaskFailed(
            f"workflow code raised {failure.application_failure_info.type}: {failure.message}\n{failure.stack_trace}"
        )
    return list(completion.successful.commands)


def difference(run: Run, before: list[WorkflowCommand], after: list[WorkflowCommand]) -> str:
    kinds = [[str(command.WhichOneof("variant")) for command in given] for given in (before, after)]
    if kinds[0] != kinds[1]:
        return f"{run.id}: the replay gave the commands {kinds[1]}, first it gave {kinds[0]}"
    pairs = next((b, a) for b, a in zip(before, after, strict=True) if a != b)
    return f"{run.id}: the replay gave\n{str(pairs[1])[:1500]}\nfirst it gave\n{str(pairs[0])[:1500]}"
