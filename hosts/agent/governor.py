"""CPU limits without control groups: an instance over its limit is suspended until its budget is refilled."""

import asyncio
import os
import signal
import time

from hosts.agent import proc

TICK_SECONDS = 0.05
IDLE_TICK_SECONDS = 0.25
"""Interval while all instances are idle. CPU time used meanwhile is subtracted at the next tick."""
LIST_SECONDS = 1.0
"""Interval of listing the instances' processes, in one pass over /proc."""
BURST_SECONDS = 0.1
"""CPU time that an instance can accumulate, so that short work is not suspended."""
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class _GovernedInstance:
    """The token bucket of one instance."""

    def __init__(self, tag: str, session: int, share: float, now: float) -> None:
        self.tag = tag
        self.session = session
        self.share = share
        self.credit_seconds = BURST_SECONDS
        self.seen_at = now
        self.ticks: dict[int, int] = {}
        self.paused = False
        self.pids: list[int] = []


class Governor:
    """A token bucket per instance: time refills it, and the CPU time in /proc empties it."""

    kind = "governor"

    def __init__(self) -> None:
        self._governed: dict[str, _GovernedInstance] = {}
        self._task: asyncio.Task[None] | None = None
        self._listed_at = 0.0

    def govern(self, tag: str, session: int, cpu_percent: float) -> None:
        """Begin to enforce the instance's limit."""
        self._governed[tag] = _GovernedInstance(tag, session, cpu_percent / 100, time.monotonic())
        self._listed_at = 0.0
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="cpu governor")

    def release(self, tag: str) -> None:
        """Stop enforcing the instance's limit, so that it can exit."""
        instance = self._governed.pop(tag, None)
        if instance is not None and instance.paused:
            proc.send(proc.members(tag, instance.session), signal.SIGCONT)

    def close(self) -> None:
        """Release every instance."""
        for tag in list(self._governed):
            self.release(tag)
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while self._governed:
            now = time.monotonic()
            if now - self._listed_at > LIST_SECONDS:
                self._listed_at = now
                self._list_members()
            busy = [self._enforce(instance, now) for instance in self._governed.values()]
            await asyncio.sleep(TICK_SECONDS if any(busy) else IDLE_TICK_SECONDS)

    def _list_members(self) -> None:
        governed = list(self._governed.values())
        members = proc.members_of({instance.tag: instance.session for instance in governed})
        for instance in governed:
            instance.pids = members[instance.tag]

    def _enforce(self, instance: _GovernedInstance, now: float) -> bool:
        """Suspend or continue the instance. Return True if it is busy."""
        used = 0
        seen: dict[int, int] = {}
        for pid in instance.pids:
            stat = proc.stat(pid)
            if stat is not None:
                seen[pid] = stat.cpu_ticks
                used += stat.cpu_ticks - instance.ticks.get(pid, stat.cpu_ticks)
        instance.ticks = seen
        gained = (now - instance.seen_at) * instance.share
        instance.seen_at = now
        instance.credit_seconds = min(
            BURST_SECONDS, instance.credit_seconds + gained - used / _TICKS_PER_SECOND
        )
        if instance.credit_seconds < 0 and not instance.paused:
            proc.send(instance.pids, signal.SIGSTOP)
            instance.paused = True
        elif instance.credit_seconds >= 0 and instance.paused:
            proc.send(instance.pids, signal.SIGCONT)
            instance.paused = False
        return used > 0 or instance.paused
