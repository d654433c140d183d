"""Carries what the pulse says is due to the endpoints' workflows."""

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
from engine.temporal.rpc_errors import TEMPORAL_FAULTS, is_gone
from engine.temporal.rpc_errors import rpc_error_text as words
from stoker_wire.control import REPORT_METRICS
from stoker_wire.messages import MetricsBatch

log = structlog.get_logger("engine.temporal.signal_sender")

TICK_SECONDS = 0.25
SLICE = 100
"""Pulses felt at a stretch, a millisecond: then whoever calls has a turn."""
RETRY_SECONDS = 1.0
SIGNALS_AT_ONCE_MAX = 32
GOODBYE_SECONDS = 3.0
ABSENT_SECONDS = 10.0
"""Between two looks so long: this process stood still, and no worker could report to it."""


class SignalSender:
    """One batch at a time per endpoint, in order; a batch that failed is sent again as it was, so nothing counts twice."""

    def __init__(
        self,
        client: Client,
        directory: Directory,
        *,
        engine_id: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._directory = directory
        self._engine_id = engine_id
        self._now = now
        self._seen_at = self._listening_since = now()
        self._sequence = itertools.count(1)
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._at_once = asyncio.Semaphore(SIGNALS_AT_ONCE_MAX)
        self._unsaid: dict[int, list[MetricsBatch]] = {}
        self._skipped = LogThrottle("herald")
        self.on_gone: Callable[[Endpoint], None] = lambda _: None

    async def run(self) -> None:
        """Look at every endpoint's pulse for ever."""
        while True:
            now = self._now()
            self._listens(now)
            for number, endpoint in enumerate(self._directory, start=1):
                try:
                    if not self._rests(endpoint, now):
                        self.flush(endpoint)
                except Exception as fault:  # noqa: BLE001 - whatever is wrong with it, the next one has its turn
                    self._skipped.say(endpoint.name, fault)
                if number % SLICE == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(TICK_SECONDS)

    def _listens(self, now: float) -> float:
        """Since when this process listens without a pause: the silence of a worker counts from then at the earliest.

        A laptop that slept and a virtual machine that was paused show as a jump of the clock between two looks.
        """
        if now - self._seen_at > ABSENT_SECONDS:
            log.warning("engine_was_absent", seconds=round(now - self._seen_at, 1))
            self._listening_since = now
        self._seen_at = now
        return self._listening_since

    def _rests(self, endpoint: Endpoint, now: float) -> bool:
        """Nothing of it can be due, and nothing was left unsaid: most endpoints, at most ticks."""
        resting = now < endpoint.batcher.not_due_before(endpoint.config.inactivity_timeout)
        return resting and not self._unsaid.get(endpoint.id)

    def flush(self, endpoint: Endpoint) -> None:
        """Send what is due, unless a batch of the endpoint is under way: then it goes right after."""
        if endpoint.id in self._sending or endpoint.gone:
            return
        if endpoint.batcher.due(endpoint.gauges(), self._now()) is None and not self._unsaid.get(endpoint.id):
            self._come_back(endpoint)
            return
        task = asyncio.get_running_loop().create_task(self._send(endpoint), name=f"signal {endpoint.name}")
        self._sending[endpoint.id] = task
        task.add_done_callback(lambda _: self._sending.pop(endpoint.id, None))

    async def close(self) -> None:
        """Stop sending, with a goodbye to each workflow: nobody has to wait for this engine's silence to be sure."""
        tasks = list(self._sending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        spoken_to = [endpoint for endpoint in self._directory if endpoint.workers and not endpoint.gone]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await asyncio.gather(*map(self._goodbye, spoken_to))

    async def _goodbye(self, endpoint: Endpoint) -> None:
        unsaid = self._unsaid.pop(endpoint.id, [])
        *before, last = self.batches(endpoint, "the engine stops", self._now())
        empty = {"stopping": True, "queued_load": 0.0, "queued_requests": 0, "oldest_wait_s": 0.0}
        handle = self._client.get_workflow_handle(endpoint.workflow_id)
        try:
            for batch in (*unsaid, *before, last.model_copy(update=empty)):
                async with self._at_once:
                    rpc_error_text = batch.model_dump(mode="json", exclude_defaults=True)
                    await handle.signal(REPORT_METRICS, rpc_error_text, rpc_timeout=timedelta(seconds=2))
        except TEMPORAL_FAULTS as fault:
            log.info("goodbye_not_said", endpoint=endpoint.name, error=words(fault))

    def batches(self, endpoint: Endpoint, urgent: str, now: float) -> list[MetricsBatch]:
        """What is due, as the workflow reads it: a steady stretch before it is a batch of its own."""
        level = endpoint.gauges()
        windows = endpoint.batcher.take_windows(level, now)
        oldest = endpoint.line.oldest
        workers = endpoint.news_of_workers(now)
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
                    queued_load=endpoint.line.load,
                    queued_requests=len(endpoint.line),
                    oldest_wait_s=max(0.0, now - oldest.arrived_at) if oldest else 0.0,
                    last_request_at=endpoint.batcher.last_request_at,
                    urgent=urgent if last else "",
                    workers=workers,
                    listening_since=self._listens(now),
                )
            )
        endpoint.tally.signals["urgent" if urgent else "regular"] += len(made)
        return made

    def _come_back(self, endpoint: Endpoint) -> None:
        """An urgent cause inside its gap is due in a moment: sooner than the next tick."""
        at = endpoint.batcher.urgent_due_at()
        if at is not None:
            wait = at - self._now()
            if 0 < wait < TICK_SECONDS:
                asyncio.get_running_loop().call_later(wait, self.flush, endpoint)

    async def _send(self, endpoint: Endpoint) -> None:
        unsaid = self._unsaid.setdefault(endpoint.id, [])
        handle = self._client.get_workflow_handle(endpoint.workflow_id)
        while not endpoint.gone:
            now = self._now()
            urgent = endpoint.batcher.due(endpoint.gauges(), now)
            if urgent is not None and len(unsaid) < 2:
                unsaid += self.batches(endpoint, urgent, now)
            if not unsaid:
                break
            try:
                async with self._at_once:
                    rpc_error_text = unsaid[0].model_dump(mode="json", exclude_defaults=True)
                    await handle.signal(REPORT_METRICS, rpc_error_text, rpc_timeout=timedelta(seconds=5))
                del unsaid[0]
            except TEMPORAL_FAULTS as fault:
                if is_gone(fault):
                    self._unsaid.pop(endpoint.id, None)
                    self.on_gone(endpoint)
                    return
                log.warning("signal_failed", endpoint=endpoint.name, error=words(fault))
                await asyncio.sleep(RETRY_SECONDS)
        self._unsaid.pop(endpoint.id, None)
        self._come_back(endpoint)
