"""Sends metrics batches as signals to the endpoints' workflows when the metrics batchers say that they are due."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable
from datetime import timedelta

import structlog
from temporalio.client import Client

from engine.routing.directory import Directory
from engine.routing.endpoint import Endpoint
from engine.temporal.log_throttle import LogThrottle
from engine.temporal.rpc_errors import TEMPORAL_FAULTS, is_gone, rpc_error_text
from stoker_wire.control import REPORT_METRICS
from stoker_wire.messages import MetricsBatch

log = structlog.get_logger("engine.temporal.signal_sender")

TICK_SECONDS = 0.25
SLICE = 100
"""Metrics batchers checked before other tasks run; about a millisecond of work."""
RETRY_SECONDS = 1.0
SIGNALS_AT_ONCE_MAX = 32
FAREWELL_SECONDS = 3.0
"""How long a stopping engine tries to send its last batches."""
ABSENT_SECONDS = 10.0
"""After a longer gap between two ticks the process was suspended, and no worker could report to it."""


class SignalSender:
    """Sends one batch at a time per endpoint, in order. A failed batch is resent unchanged, so nothing counts twice."""

    def __init__(
        self,
        client: Client,
        directory: Directory,
        *,
        engine_id: str,
        on_closed: Callable[[Endpoint], None] = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            on_closed: called when Temporal answers that the endpoint's workflow does not run.
            now: Unix seconds.
        """
        self._client = client
        self._directory = directory
        self._engine_id = engine_id
        self._on_closed = on_closed
        self._now = now
        self._ticked_at = self._listening_since = now()
        self._sequence = itertools.count(1)
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._at_once = asyncio.Semaphore(SIGNALS_AT_ONCE_MAX)
        self._unsent: dict[int, list[MetricsBatch]] = {}
        self._throttle = LogThrottle("signal_sender")

    async def run(self) -> None:
        """Check the metrics batcher of every endpoint until cancelled."""
        while True:
            now = self._now()
            self._update_listening_since(now)
            for number, endpoint in enumerate(self._directory, start=1):
                try:
                    if not self._is_idle(endpoint, now):
                        self.flush(endpoint)
                except Exception as fault:  # noqa: BLE001 - a fault of one endpoint must not stop the others
                    self._throttle.log(endpoint.name, fault)
                if number % SLICE == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(TICK_SECONDS)

    def _update_listening_since(self, now: float) -> float:
        """Start of this process's uninterrupted run: missing reports of workers count from then at the earliest.

        A suspended laptop or a paused virtual machine shows as a jump of the clock between two ticks.
        """
        if now - self._ticked_at > ABSENT_SECONDS:
            log.warning("engine_was_suspended", seconds=round(now - self._ticked_at, 1))
            self._listening_since = now
        self._ticked_at = now
        return self._listening_since

    def _is_idle(self, endpoint: Endpoint, now: float) -> bool:
        """Whether nothing can be due and nothing is unsent. True for most endpoints at most ticks."""
        idle = now < endpoint.metrics_batcher.not_due_before(endpoint.config.inactivity_timeout)
        return idle and not self._unsent.get(endpoint.id)

    def flush(self, endpoint: Endpoint) -> None:
        """Send what is due. While a batch of the endpoint is being sent, the next one follows right after it."""
        if endpoint.id in self._sending or endpoint.gone:
            return
        due = endpoint.metrics_batcher.due(endpoint.gauges(), self._now())
        if due is None and not self._unsent.get(endpoint.id):
            self._schedule_urgent(endpoint)
            return
        task = asyncio.get_running_loop().create_task(self._send(endpoint), name=f"signal {endpoint.name}")
        self._sending[endpoint.id] = task
        task.add_done_callback(lambda _: self._sending.pop(endpoint.id, None))

    async def close(self) -> None:
        """Stop sending, and tell each workflow that this engine stops, so that it expects no further batches."""
        tasks = list(self._sending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        known = [endpoint for endpoint in self._directory if endpoint.workers and not endpoint.gone]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await asyncio.gather(*map(self._send_last, known))

    async def _send_last(self, endpoint: Endpoint) -> None:
        unsent = self._unsent.pop(endpoint.id, [])
        *before, last = self.batches(endpoint, "the engine stops", self._now())
        empty = {"stopping": True, "queued_load": 0.0, "queued_requests": 0, "oldest_wait_s": 0.0}
        try:
            for batch in (*unsent, *before, last.model_copy(update=empty)):
                await self._signal(endpoint, batch, timedelta(seconds=2))
        except TEMPORAL_FAULTS as fault:
            log.info("last_signal_failed", endpoint=endpoint.name, error=rpc_error_text(fault))

    def batches(self, endpoint: Endpoint, urgent: str, now: float) -> list[MetricsBatch]:
        """The due batches. An idle period before the current window is a batch of its own."""
        gauges = endpoint.gauges()
        windows = endpoint.metrics_batcher.take_windows(gauges, now)
        queue = endpoint.request_queue
        oldest = queue.oldest
        workers = endpoint.changed_workers(now)
        breaks = endpoint.broken_requests.unshared(endpoint.memo.b)
        keys = endpoint.client_keys.take_uses()
        made = []
        for window in windows:
            last = window is windows[-1]
            made.append(
                MetricsBatch(
                    engine_id=self._engine_id,
                    sequence=next(self._sequence),
                    sent_at=window.ended_at,
                    window_s=round(window.seconds, 3),
                    arrived_load=window.load,
                    arrived_requests=window.requests,
                    queued_load=queue.load,
                    queued_requests=len(queue),
                    oldest_wait_s=max(0.0, now - oldest.arrived_at) if oldest else 0.0,
                    last_request_at=endpoint.metrics_batcher.last_request_at,
                    urgent=urgent if last else "",
                    workers=workers,
                    breaks=breaks if last else (),
                    listening_since=self._update_listening_since(now),
                    keys=keys if last else (),
                )
            )
        endpoint.counters.signals["urgent" if urgent else "regular"] += len(made)
        return made

    def _schedule_urgent(self, endpoint: Endpoint) -> None:
        """An urgent cause may become due before the next tick: flush exactly then."""
        at = endpoint.metrics_batcher.urgent_due_at()
        if at is not None:
            wait = at - self._now()
            if 0 < wait < TICK_SECONDS:
                asyncio.get_running_loop().call_later(wait, self.flush, endpoint)

    async def _send(self, endpoint: Endpoint) -> None:
        unsent = self._unsent.setdefault(endpoint.id, [])
        while not endpoint.gone:
            now = self._now()
            urgent = endpoint.metrics_batcher.due(endpoint.gauges(), now)
            if urgent is not None and len(unsent) < 2:
                unsent += self.batches(endpoint, urgent, now)
            if not unsent:
                break
            try:
                await self._signal(endpoint, unsent[0], timedelta(seconds=5))
                del unsent[0]
            except TEMPORAL_FAULTS as fault:
                if is_gone(fault):
                    self._unsent.pop(endpoint.id, None)
                    self._on_closed(endpoint)
                    return
                log.warning("signal_failed", endpoint=endpoint.name, error=rpc_error_text(fault))
                await asyncio.sleep(RETRY_SECONDS)
        self._unsent.pop(endpoint.id, None)
        self._schedule_urgent(endpoint)

    async def _signal(self, endpoint: Endpoint, batch: MetricsBatch, rpc_timeout: timedelta) -> None:
        handle = self._client.get_workflow_handle(endpoint.workflow_id)
        async with self._at_once:
            value = batch.model_dump(mode="json", exclude_defaults=True)
            await handle.signal(REPORT_METRICS, value, rpc_timeout=rpc_timeout)
