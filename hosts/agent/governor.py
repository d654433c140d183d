"""CPU shares without the kernel's help: whoever used up its share is stopped until time has given it back."""

import asyncio
import os
import signal
import time

from hosts.agent import proc

TICK_SECONDS = 0.05
REST_SECONDS = 0.25
"""Between looks while everybody is idle; what is used unseen in that time is paid back afterwards."""
LIST_SECONDS = 1.0
"""Between looks at who belongs to whom: one pass over /proc for all."""
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


class Governor:
    """A token bucket per instance, filled by the clock and emptied by /proc's CPU times."""

    kind = "governor"

    def __init__(self) -> None:
        self._wards: dict[str, _Ward] = {}
        self._task: asyncio.Task[None] | None = None
        self._listed_at = 0.0

    def govern(self, mark: str, session: int, cpu_percent: float) -> None:
        """Hold the instance to its share from now on."""
        self._wards[mark] = _Ward(mark, session, cpu_percent / 100, time.monotonic())
        self._listed_at = 0.0
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
            if now - self._listed_at > LIST_SECONDS:
                self._listed_at = now
                self._list()
            busy = [self._judge(ward, now) for ward in self._wards.values()]
            await asyncio.sleep(TICK_SECONDS if any(busy) else REST_SECONDS)

    def _list(self) -> None:
        wards = list(self._wards.values())
        members = proc.members_of({ward.mark: ward.session for ward in wards})
        for ward in wards:
            ward.pids = members[ward.mark]

    def _judge(self, ward: _Ward, now: float) -> bool:
        """Suspend or continue it; True if it is busy."""
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
        return used > 0 or ward.paused
