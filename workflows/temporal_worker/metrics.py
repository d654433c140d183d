"""Metrics of a Temporal worker process: workflow tasks, activities, marketplace calls, and Temporal's actions."""

import asyncio
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from prometheus_client import Histogram
from temporalio import activity
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from webserver.metrics_page import Declared, new_registry

_BUILD = Declared(
    name="stoker_build_info",
    labels=("version", "build_id"),
    about="1; the labels name the version, and the build of the worker deployment",
)
_TASKS = Declared(
    name="stoker_workflow_task_seconds",
    labels=("workflow", "outcome"),
    about="Time in workflow code for one workflow task, replays included: done, or failed",
)
_ACTIVITIES = Declared(
    name="stoker_activity_seconds",
    labels=("activity", "outcome"),
    about="Attempts of activities: done, failed, cancelled; the activity plan is the planner",
)
_CALLS = Declared(
    name="stoker_market_call_seconds",
    labels=("call", "outcome"),
    about="HTTP calls of the marketplace: done, or the error, as OfferGone, Refused, RateLimited, Unavailable",
)
_ACTIONS = Declared(
    name="stoker_temporal_actions_total",
    labels=("action",),
    about="What Temporal Cloud bills: signals, timers, activities and their retries, updates, queries, starts, …",
)
DECLARED = (_BUILD, _TASKS, _ACTIVITIES, _CALLS, _ACTIONS)

_BY_JOB = {
    "initialize_workflow": "start",
    "signal_workflow": "signal",
    "do_update": "update",
    "query_workflow": "query",
}
_BY_COMMAND = {
    "start_timer": "timer",
    "schedule_activity": "activity",
    "upsert_workflow_search_attributes": "search_attributes",
    "signal_external_workflow_execution": "signal",
    "start_child_workflow_execution": "start",
}
_LOCAL = "schedule_local_activity"
"""All local activities of one workflow task are one action."""


class TemporalWorkerMetrics:
    """The registry of one worker process, and what counts into it."""

    def __init__(self, build_id: str = "") -> None:
        self.registry = new_registry()
        _BUILD.gauge(self.registry).labels(version("stoker-wire"), build_id).set(1)
        self._tasks = _TASKS.histogram(self.registry)
        self._activities = _ACTIVITIES.histogram(self.registry)
        self._calls = _CALLS.histogram(self.registry)
        self._actions = _ACTIONS.counter(self.registry)

    def workflow_task(
        self, workflow: str, asked: WorkflowActivation, made: WorkflowActivationCompletion, seconds: float
    ) -> None:
        """A workflow task has ended. Replayed ones were billed before."""
        failed = made.HasField("failed")
        self._tasks.labels(workflow, "failed" if failed else "done").observe(seconds)
        if asked.is_replaying:
            return
        actions = [_BY_JOB.get(job.WhichOneof("variant") or "") for job in asked.jobs]
        commands = [command.WhichOneof("variant") or "" for command in made.successful.commands]
        actions += [_BY_COMMAND.get(command) for command in commands]
        if _LOCAL in commands:
            actions.append("local_activities")
        for action in actions:
            if action is not None:
                self._actions.labels(action).inc()

    def activity(self, name: str, outcome: str, seconds: float) -> None:
        """An attempt of an activity has ended."""
        self._activities.labels(name, outcome).observe(seconds)

    def retry(self) -> None:
        """Temporal runs an activity once more."""
        self._actions.labels("activity_retry").inc()

    def market_call(self, call: str, outcome: str, seconds: float) -> None:
        """A call of the marketplace has ended."""
        self._calls.labels(call, outcome).observe(seconds)

    def tasks_failed(self) -> dict[str, float]:
        """Failed workflow tasks, by workflow."""
        return _counts(self._tasks, "workflow", lambda labels: labels["outcome"] == "failed")

    def market_outcomes(self) -> dict[str, float]:
        """Calls of the marketplace, by outcome."""
        return _counts(self._calls, "outcome")


def _counts(
    histogram: Histogram, label: str, chosen: Callable[[dict[str, str]], bool] = lambda _: True
) -> dict[str, float]:
    counts: dict[str, float] = {}
    for sample in (each for metric in histogram.collect() for each in metric.samples):
        if sample.name.endswith("_count") and chosen(sample.labels):
            name = sample.labels[label]
            counts[name] = counts.get(name, 0.0) + sample.value
    return counts


class MeasuredActivities(Interceptor):
    """Counts and times every attempt of an activity."""

    def __init__(self, metrics: TemporalWorkerMetrics) -> None:
        self._metrics = metrics

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """The interceptor of one activity."""
        return _Measured(next, self._metrics)


class _Measured(ActivityInboundInterceptor):
    def __init__(self, following: ActivityInboundInterceptor, metrics: TemporalWorkerMetrics) -> None:
        super().__init__(following)
        self._metrics = metrics

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        info = activity.info()
        if info.attempt > 1 and not info.is_local:
            self._metrics.retry()
        outcome, began = "failed", time.perf_counter()
        try:
            result = await super().execute_activity(input)
            outcome = "done"
            return result
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._metrics.activity(info.activity_type, outcome, time.perf_counter() - began)
