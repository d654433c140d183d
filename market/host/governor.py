"""CPU shares without the kernel's help: whoever used up its share is stopped until time has given it back."""

import asyncio
import os
import signal
import time

from market.host import proc

TICK_SECONDS = 0.05
BURST_SECONDS = 0.1
"""CPU time an instance may save up, so that short work is not cut."""
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class _Ward:
    """One governed instance."""

    def __init__(self, mark: str, session: int, share: float, now: float) -> None:
        self.mark = mark
        self.session = session
        self.share = share
        self.credit_seconds = BURST_SECONDS
        self.seen_at = now
        self.ticks: dict[int, int] = {}
        self.paused = False
        self.pids: list[int] = []
        self.listed_at = 0.0


class Governor:
    """A token bucket per instance, filled by the clock and emptied by /proc's CPU times."""

    kind = "governor"

    def __init__(self) -> None:
        self._wards: dict[str, _Ward] = {}
        self._task: asyncio.Task[None] | None = None

    def govern(self, mark: str, session: int, cpu_percent: float) -> None:
        """Hold the instance to its share from now on."""
        self._wards[mark] = _Ward(mark, session, cpu_percent / 100, time.monotonic())
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="cpu governor")

    def release(self, mark: str) -> None:
        """Let the instance run freely, so that it can end."""
        ward = self._wards.pop(mark, None)
        if ward is not None and ward.paused:
            proc.send(proc.members(mark, ward.session), signal.SIGCONT)

    def close(self) -> None:
        """Let everybody go."""
        for mark in list(self._wards):
            self.release(mark)
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while self._wards:
            now = time.monotonic()
            for ward in list(self._wards.values()):
                self._judge(ward, now)
            await asyncio.sleep(TICK_SECONDS)

    def _judge(self, ward: _Ward, now: float) -> None:
        if now - ward.listed_at > 0.5:
            ward.pids = proc.members(ward.mark, ward.session)
            ward.listed_at = now
        used = 0
        seen: dict[int, int] = {}
        for pid in ward.pids:
            stat = proc.stat(pid)
            if stat is not None:
                seen[pid] = stat.cpu_ticks
                used += stat.cpu_ticks - ward.ticks.get(pid, stat.cpu_ticks)
        ward.ticks = seen
        gained = (now - ward.seen_at) * ward.share
        ward.seen_at = now
        ward.credit_seconds = min(BURST_SECONDS, ward.credit_seconds + gained - used / _TICKS_PER_SECOND)
        if ward.credit_seconds < 0 and not ward.paused:
            proc.send(ward.pids, signal.SIGSTOP)
            ward.paused = True
        elif ward.credit_seconds >= 0 and ward.paused:
            proc.send(ward.pids, signal.SIGCONT)
            ward.paused = False
