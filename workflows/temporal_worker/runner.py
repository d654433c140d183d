"""How workflows are run: in the sandbox, our own packages shared, payloads handled without entering it."""

import time

from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.converter import SerializationContext, StorageDriverStoreContext
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions
from temporalio.workflow import Info

from workflows.temporal_worker.metrics import TemporalWorkerMetrics

PASSTHROUGH = (
    "activities",
    "controller",
    "market",
    "policy",
    "stoker_wire",
    "workflows",
    "structlog",
    "pydantic",
    "httpx",
    "opentelemetry",
)
"""Our packages hold no state of a module's own, so every workflow may share them: a third of the memory and a fifth of
the start-up time of a workflow."""


class Runner(SandboxedWorkflowRunner):
    """The SDK's sandbox without the lookup of a serialization context, which runs six times per payload."""

    metrics: TemporalWorkerMetrics | None = None
    """Where workflow tasks are counted; None: nowhere."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """A workflow in its sandbox."""
        made = _AlikeForAll(super().create_instance(det))
        return made if self.metrics is None else _Measured(made, self.metrics, det.info.workflow_type)


class _AlikeForAll(WorkflowInstance):
    """A workflow with the same serialization context for all its payloads.

    The SDK looks up the context of each payload inside the sandbox, for codecs and stores that depend on it. Ours
    (`workflows.temporal_worker.converter`) do not. Each lookup compiles code and enters the sandbox, which took a sixth of the
    Temporal worker's CPU with a thousand endpoints.
    """

    def __init__(self, sandboxed: WorkflowInstance) -> None:
        self._sandboxed = sandboxed
        self._store_context = StorageDriverStoreContext(target=None)

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        """As the sandbox does."""
        return self._sandboxed.activate(act)

    def get_serialization_context(self, command_info: object) -> SerializationContext | None:
        """None: nothing that converts asks for it."""
        return None

    def get_external_store_context(self, command_info: object) -> StorageDriverStoreContext:
        """Nothing is stored outside histories."""
        return self._store_context

    def get_info(self) -> Info:
        """As the sandbox says."""
        return self._sandboxed.get_info()

    def get_thread_id(self) -> int | None:
        """The thread that it runs on, for a deadlock's stack."""
        return self._sandboxed.get_thread_id()


class _Measured(_AlikeForAll):
    """A workflow whose tasks are counted, outside its sandbox."""

    def __init__(self, sandboxed: WorkflowInstance, metrics: TemporalWorkerMetrics, workflow: str) -> None:
        super().__init__(sandboxed)
        self._metrics = metrics
        self._workflow = workflow

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        """As the sandbox does."""
        began = time.perf_counter()
        made = super().activate(act)
        self._metrics.workflow_task(self._workflow, act, made, time.perf_counter() - began)
        return made


def workflow_runner(metrics: TemporalWorkerMetrics | None = None) -> Runner:
    """For workers, and for those that replay histories."""
    runner = Runner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*PASSTHROUGH))
    runner.metrics = metrics
    return runner
