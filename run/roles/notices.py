"""The notifier's Temporal worker, which engines and Temporal workers run where notifications are configured."""

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog
from temporalio.client import Client

from activities.notices.deliver import Channel, NoticeActivities
from policy.alerting.conditions import (
    FAILED_WINDOW_SECONDS,
    TASKS_WINDOW_SECONDS,
    Window,
    share,
    worker_alerts,
)
from run.settings import DeploymentSettings
from stoker_wire.alerts import ActiveAlert
from workflows.temporal_worker.metrics import TemporalWorkerMetrics
from workflows.temporal_worker.worker import build_notifier_worker

log = structlog.get_logger(__name__)

RESTART_SECONDS = 10.0
_MARKET_FAILURES = ("Unavailable", "Unauthorised", "RateLimited")


class WorkerAlerts:
    """Evaluates the alert conditions that a Temporal worker sees."""

    def __init__(self, metrics: TemporalWorkerMetrics, now: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._now = now
        self._calls = Window(FAILED_WINDOW_SECONDS)
        self._tasks = Window(TASKS_WINDOW_SECONDS)

    def active(self) -> list[ActiveAlert]:
        """The active alerts."""
        now = self._now()
        failing = self._tasks.grown(self._metrics.tasks_failed(), now)
        return worker_alerts(
            market_failed_share=share(
                self._calls.grown(self._metrics.market_outcomes(), now), _MARKET_FAILURES
            ),
            failing_workflows=[name for name, count in sorted(failing.items()) if count > 0],
        )


def start_notifier_worker(
    client: Client, settings: DeploymentSettings, channels: Mapping[str, Channel]
) -> asyncio.Task[None]:
    """Poll the notifier's task queue until the task is cancelled. A fault of it does not end the process."""
    return asyncio.create_task(_run(client, NoticeActivities(channels), settings), name="notifier worker")


async def _run(client: Client, activities: NoticeActivities, settings: DeploymentSettings) -> None:
    while True:
        try:
            await build_notifier_worker(client, activities, settings.worker.version()).run()
        except Exception as fault:  # noqa: BLE001 - routing and scaling go on without notices
            log.error("notifier_worker_failed", reason=f"{type(fault).__name__}: {fault}"[:300])
        await asyncio.sleep(RESTART_SECONDS)
