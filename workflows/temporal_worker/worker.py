"""The Temporal worker of a deployment: one for workflows and the planner, one for the marketplace."""

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.worker import PollerBehaviorSimpleMaximum, Worker, WorkerDeploymentConfig

from activities.instances import MarketActivities
from activities.notices.deliver import NoticeActivities
from activities.planner import plan
from stoker_wire.alerts import NOTIFIER_TASK_QUEUE
from stoker_wire.control import MARKET_TASK_QUEUE, TASK_QUEUE
from workflows.endpoint import EndpointWorkflow
from workflows.notifier import NotifierWorkflow
from workflows.sweep.release import ReleaseWorkflow
from workflows.sweep.sweep import SweepActivities, SweepWorkflow
from workflows.temporal_worker.metrics import MeasuredActivities, TemporalWorkerMetrics
from workflows.temporal_worker.runner import workflow_runner

STICKY_SECONDS = 5.0
"""How long a task waits for the worker that caches its workflow. After this, another worker replays the history, which
takes one or two seconds. A busy worker answers within a few hundred milliseconds, an overloaded one within two seconds.
A shorter time adds replays to an overloaded worker: with a thousand endpoints it never recovered."""

WORKFLOW_POLLS = 20
"""Concurrent polls for workflow tasks. One in five is for workflows outside the cache: with the SDK's default of five,
a thousand workflows took minutes to return after an overload."""
ACTIVITY_POLLS = 10
NOTIFIER_SHUTDOWN_SECONDS = 5.0
"""For deliveries under way. Others repeat a delivery that did not end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How much one worker process takes on."""

    market_calls_per_second: float = 2.0
    """For the whole deployment, kept by the task queue on the server; the last worker to poll sets it."""
    cached_workflows_max: int = 5000
    """More endpoints than that are replayed at every signal."""
    graceful_shutdown_seconds: float = 30.0
    """For activities under way, before they are cancelled."""
    market_calls_at_once_max: int = 50
    lists_at_once_max: int = 2000
    """They only wait for the list that they share: one for every endpoint costs nothing but its place."""
    planners_at_once_max: int = 50
    version: WorkerDeploymentVersion | None = None
    """Of which deployment and build these workers are. None: not versioned, every worker carries every workflow."""


def build_workers(
    client: Client,
    market_activities: MarketActivities,
    settings: WorkerSettings | None = None,
    metrics: TemporalWorkerMetrics | None = None,
) -> list[Worker]:
    """The workers of one process, to be run together (`async with` each, or `run()`).

    The client must use `workflows.temporal_worker.converter.data_converter`. Without `metrics` nothing is counted.
    """
    settings = settings or WorkerSettings()
    sweep = SweepActivities(client, market_activities)
    both: dict[str, Any] = {
        "interceptors": [] if metrics is None else [MeasuredActivities(metrics)],
        "activity_task_poller_behavior": PollerBehaviorSimpleMaximum(ACTIVITY_POLLS),
        "graceful_shutdown_timeout": timedelta(seconds=settings.graceful_shutdown_seconds),
        "deployment_config": _deployment(settings.version),
    }
    return [
        Worker(
            client,
            task_queue=TASK_QUEUE,
            workflows=[EndpointWorkflow, SweepWorkflow, ReleaseWorkflow],
            activities=[
                plan,
                sweep.find_orphans,
                sweep.end_endpoint,
                sweep.instances_of,
                market_activities.list_instances,
                market_activities.start_instance,
            ],
            workflow_runner=workflow_runner(metrics),
            max_cached_workflows=settings.cached_workflows_max,
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=STICKY_SECONDS),
            workflow_task_poller_behavior=PollerBehaviorSimpleMaximum(WORKFLOW_POLLS),
            max_concurrent_activities=settings.lists_at_once_max,
            max_concurrent_local_activities=settings.planners_at_once_max,
            **both,
        ),
        Worker(
            client,
            task_queue=MARKET_TASK_QUEUE,
            activities=[
                market_activities.search_offers,
                market_activities.create_instance,
                market_activities.start_instance,
                market_activities.stop_instance,
                market_activities.reboot_instance,
                market_activities.destroy_instance,
                market_activities.update_instance,
            ],
            max_concurrent_activities=settings.market_calls_at_once_max,
            max_task_queue_activities_per_second=settings.market_calls_per_second,
            **both,
        ),
    ]


def build_notifier_worker(
    client: Client,
    activities: NoticeActivities,
    version: WorkerDeploymentVersion | None = None,
    *,
    graceful_shutdown_seconds: float = NOTIFIER_SHUTDOWN_SECONDS,
) -> Worker:
    """The worker of the notifier, for engines and Temporal workers: each can report the loss of the other."""
    return Worker(
        client,
        task_queue=NOTIFIER_TASK_QUEUE,
        workflows=[NotifierWorkflow],
        activities=[activities.deliver_notices],
        workflow_runner=workflow_runner(),
        graceful_shutdown_timeout=timedelta(seconds=graceful_shutdown_seconds),
        deployment_config=_deployment(version),
    )


def _deployment(version: WorkerDeploymentVersion | None) -> WorkerDeploymentConfig | None:
    if version is None:
        return None
    return WorkerDeploymentConfig(
        version=version,
        use_worker_versioning=True,
        # said here and not by the workflows: a worker that is not versioned may not name a behaviour
        default_versioning_behavior=VersioningBehavior.PINNED,
    )


def forwarding_runtime(logger: logging.Logger | None = None, *, level: str = "WARN") -> Runtime:
    """A runtime whose core logs go through `logging`: written to stdout by the core, a full pipe would freeze it."""
    return Runtime(
        telemetry=TelemetryConfig(
            logging=LoggingConfig(
                filter=TelemetryFilter(core_level=level, other_level="ERROR"),
                forwarding=LogForwardingConfig(logger=logger or logging.getLogger("temporalio.core")),
            )
        )
    )
