"""Samples the fleet through the engine's API and the demo's traffic, twice a second."""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Self

from rich.live import Live
from rich.table import Table

import stoker
from run.demo.samples import BOOTING, COLD, HOT, Record, Sample
from stoker.cli.output import Terminal

SAMPLE_SECONDS = 0.5
LOAD_WINDOW_SECONDS = 2.0
LINE_SECONDS = 4.0
"""Interval of printed lines if the output is not a terminal."""


class FleetSampler:
    """Records samples while it is open, and shows the newest one."""

    def __init__(self, client: stoker.Serverless, endpoint_id: int, record: Record) -> None:
        self._client = client
        self._endpoint_id = endpoint_id
        self._record = record
        self._began = time.monotonic()
        self._sent: deque[tuple[float, int]] = deque()
        self._waiting: dict[int, float] = {}
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self.phase = ""

    @property
    def clock_s(self) -> float:
        """Seconds since the sampler was created."""
        return time.monotonic() - self._began

    def start_phase(self, phase: str) -> None:
        """Print the start of a phase."""
        self.phase = phase
        Terminal(highlight=False).print(f"{self.clock_s:6.1f} s  {phase}", style="bold")

    def on_sent(self, number: int, tokens: int) -> None:
        """Record that a request was sent."""
        self._sent.append((self.clock_s, tokens))
        self._waiting[number] = self.clock_s

    def on_answered(self, number: int) -> None:
        """Record that a request was answered or failed."""
        self._waiting.pop(number, None)

    async def wait_until(
        self, condition: Callable[[Sample], bool], *, seconds_max: float, what: str
    ) -> Sample:
        """The first sample that meets the condition.

        Raises:
            TimeoutError: no sample did in time. The message names the condition and the last sample.
        """
        try:
            async with asyncio.timeout(seconds_max), self._changed:
                while True:
                    if self._record.samples and condition(self._record.samples[-1]):
                        return self._record.samples[-1]
                    await self._changed.wait()
        except TimeoutError:
            last = self._record.samples[-1] if self._record.samples else None
            raise TimeoutError(f"waited {seconds_max:.0f} s for {what}; last seen: {last}") from None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="fleet sampler")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        terminal = sys.stdout.isatty()
        with Live(refresh_per_second=4, transient=True) if terminal else _NoLive() as live:
            printed = -LINE_SECONDS
            while True:
                sample = await self._sample()
                if sample is not None:
                    self._record.samples.append(sample)
                    async with self._changed:
                        self._changed.notify_all()
                    live.update(_table(sample))
                    if not terminal and sample.at_s - printed >= LINE_SECONDS:
                        printed = sample.at_s
                        print(_line(sample), flush=True)
                await asyncio.sleep(SAMPLE_SECONDS)

    async def _sample(self) -> Sample | None:
        try:
            workers = await self._client.endpoints.workers(self._endpoint_id)
        except stoker.StokerError:
            return None  # the engine restarts; try again at the next sample
        now = self.clock_s
        while self._sent and self._sent[0][0] < now - LOAD_WINDOW_SECONDS:
            self._sent.popleft()
        draining = [worker for worker in workers if (worker.model_extra or {}).get("draining")]
        hot = [worker for worker in workers if worker.status in HOT and worker not in draining]
        oldest = min(self._waiting.values(), default=now)
        return Sample(
            at_s=now,
            load=sum(tokens for _, tokens in self._sent) / LOAD_WINDOW_SECONDS,
            capacity=sum(worker.measured_perf for worker in hot),
            hot=len(hot),
            booting=sum(worker.status in BOOTING for worker in workers),
            cold=sum(worker.status in COLD for worker in workers),
            draining=len(draining) + sum(worker.status == "stopping" for worker in workers),
            waiting=len(self._waiting),
            queue_s=now - oldest,
            dollars_per_hour=sum(
                worker.dph_total or 0.0 for worker in workers if worker.status in HOT | BOOTING
            ),
            phase=self.phase,
        )


class _NoLive:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, _: Table) -> None:
        """Ignore the table: the output is not a terminal."""


def _table(sample: Sample) -> Table:
    table = Table(title=f"{sample.at_s:6.1f} s  {sample.phase}")
    for name in ("hot", "booting", "cold", "draining", "load", "capacity", "in flight", "oldest", "$/h"):
        table.add_column(name, justify="right")
    table.add_row(
        *(str(sample.hot), str(sample.booting), str(sample.cold), str(sample.draining)),
        *(f"{sample.load:.0f}", f"{sample.capacity:.0f}", str(sample.waiting)),
        *(f"{sample.queue_s:.1f} s", f"{sample.dollars_per_hour:.3f}"),
    )
    return table


def _line(sample: Sample) -> str:
    return (
        f"{sample.at_s:6.1f} s  hot {sample.hot}  booting {sample.booting}  cold {sample.cold}  "
        f"draining {sample.draining}  load {sample.load:5.0f}/s  capacity {sample.capacity:5.0f}/s  "
        f"in flight {sample.waiting:3d}  oldest {sample.queue_s:4.1f} s  ${sample.dollars_per_hour:.3f}/h"
    )
