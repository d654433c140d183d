"""Reads the engine's figures for the alert conditions, and reports the active ones."""

import asyncio
import math
import time
from typing import TYPE_CHECKING

from activities.notices.reporting import AlertReporter
from engine import endpoint_stats
from engine.routing.endpoint import Endpoint
from policy.alerting.conditions import (
    FAILED_WINDOW_SECONDS,
    EndpointSnapshot,
    Window,
    deployment_alerts,
    endpoint_alerts,
    share,
)
from stoker_wire.alerts import ActiveAlert

if TYPE_CHECKING:
    from engine.engine import Engine

LOOK_SECONDS = 5.0
"""Interval at which the conditions are evaluated. Doubled: an alert fires up to five seconds later."""
SLICE = 50
"""Endpoints evaluated before other tasks run."""
_FAILED = ("failed", "expired", "turned_away")


class AlertWatch:
    """Evaluates the alert conditions of all endpoints and reports them."""

    def __init__(self, engine: "Engine", reporter: AlertReporter) -> None:
        self._engine = engine
        self._reporter = reporter
        self._outcomes: dict[int, Window] = {}
        """By endpoint id."""

    async def run(self) -> None:
        """Evaluate and report until cancelled."""
        while True:
            if self._engine.endpoint_watcher.has_read_all:
                await self._reporter.report(await self.active(time.time()))
            await asyncio.sleep(LOOK_SECONDS)

    async def active(self, now: float) -> list[ActiveAlert]:
        """Every active alert."""
        found: list[ActiveAlert] = []
        endpoints = list(self._engine.directory)
        self._outcomes = {
            each.id: self._outcomes.get(each.id) or Window(FAILED_WINDOW_SECONDS) for each in endpoints
        }
        for number, endpoint in enumerate(endpoints, start=1):
            found += endpoint_alerts(self._figures(endpoint, now))
            if number % SLICE == 0:
                await asyncio.sleep(0)
        foreign = self._engine.endpoint_watcher.foreign
        return found if foreign is None else found + deployment_alerts(foreign, now)

    def _figures(self, endpoint: Endpoint, now: float) -> EndpointSnapshot:
        config = endpoint.config
        outcomes = self._outcomes[endpoint.id].grown(endpoint.stats.outcomes, now)
        limit = config.dollars_per_hour_max
        return EndpointSnapshot(
            name=endpoint.name,
            health=endpoint_stats.health(endpoint),
            fault=endpoint.fault,
            queued_requests=len(endpoint.request_queue),
            queue_seconds=endpoint.queue_seconds,
            target_queue_seconds=config.target_queue_time,
            workers=len(endpoint_stats.listed_workers(endpoint)),
            workers_max=config.max_workers,
            gpu_dollars_per_hour=sum(endpoint_stats.gpu_dollars_per_hour(endpoint).values()),
            dollars_per_hour_max=math.inf if limit is None else limit,
            failed_share=share(outcomes, _FAILED),
            bill_difference=endpoint.memo.bills,
            wait_reason=endpoint.memo.wait_reason,
            worker_error=endpoint_stats.worker_error(endpoint),
        )
