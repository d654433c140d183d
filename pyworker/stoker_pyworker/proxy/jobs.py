"""Jobs: one ticket is valid for the calls of one job, within bounds of time, number and workload.

A job begins with the first call that carries a valid ticket to a route with `in_job`. It is charged once, with the cost
of its ticket. After some time without a running call it is settled: it no longer counts as load, and takes only calls
without workload, such as the download of its results. The ticket authenticates every call.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Any

from stoker_pyworker.config import WorkerConfig
from stoker_pyworker.proxy.exchange import Exchange
from stoker_pyworker.reporting.request_counts import Outcome, RequestCounts, Work
from stoker_wire.errors.problem import Problem

PREFIX = b"/pyworker/job/"
"""`/pyworker/job/<ticket>/<path>` is a call of the job of this ticket."""

_SWEEP_SECONDS = 0.5
_OPEN_CALLS_MAX = 64
_SETTLED_MAX = 10_000
"""Settled jobs kept for further calls; the oldest end first."""
_ROUNDING = 1e-9
_ENDED = Problem(410, "job_ended", "the job of this ticket has ended; route again")


class Job:
    """One open job."""

    __slots__ = (
        "calls",
        "cost",
        "idle_since",
        "opened_at",
        "outcome",
        "refused",
        "running",
        "settled",
        "used",
        "work",
    )

    def __init__(self, work: Work, cost: float, refused: tuple[str, ...]) -> None:
        self.work = work
        self.cost = cost
        """Workload that its ticket allows."""
        self.refused = refused
        """Starts of the fingerprints of requests that broke workers, from its ticket."""
        self.used = 0.0
        """Workload of its calls so far."""
        self.calls = 0
        self.running: dict[Exchange, bool] = {}
        """The running calls, each with whether it brings workload."""
        self.opened_at = self.idle_since = time.monotonic()
        self.outcome = Outcome.CANCELLED
        """Outcome of its calls with workload; cancelled before the first one."""
        self.settled = False

    def __repr__(self) -> str:
        return f"<Job of request {self.work.request_idx}, {self.calls} calls, {self.used:g} of {self.cost:g}>"

    def start_call(self, call: Exchange, workload: float) -> None:
        """A call begins."""
        self.running[call] = workload > 0

    def call_ended(self, call: Exchange, outcome: Outcome) -> None:
        """A call has ended."""
        if self.running.pop(call, False) and self.outcome is not Outcome.SUCCESS:
            self.outcome = outcome
            self.work.fingerprint = call.work.fingerprint
        self.idle_since = time.monotonic()


class Jobs:
    """The open jobs, by their tickets."""

    def __init__(
        self, config: WorkerConfig, counts: RequestCounts, *, on_empty: Callable[[], None] = lambda: None
    ) -> None:
        """`on_empty` is called when no job counts as load any more."""
        self._config = config
        self._counts = counts
        self._on_empty = on_empty
        self._open: dict[bytes, Job] = {}
        self._unsettled = 0

    def __len__(self) -> int:
        """Jobs that count as load."""
        return self._unsettled

    def find(self, ticket: str) -> Job | None:
        """The open job of this ticket."""
        return self._open.get(_digest(ticket)) if self._open and ticket else None

    def open(self, ticket: str, work: Work, cost: float, refused: tuple[str, ...]) -> Job:
        """A job begins. Its work was accepted with the cost of the ticket."""
        job = self._open[_digest(ticket)] = Job(work, cost, refused)
        self._unsettled += 1
        work.started_at = work.entered_at
        return job

    def use(self, job: Job, workload: float) -> None:
        """Count one more call.

        Raises:
            Problem: 403 for too many calls or too much workload, 410 for workload after the job was settled, 429 for
                too many calls at once.
        """
        config = self._config
        if job.calls >= config.job_calls_max:
            message = f"the job has made {job.calls} calls, its limit; route again for another job"
            raise Problem(403, "job_calls_exceeded", message)
        if len(job.running) >= _OPEN_CALLS_MAX:
            message = f"{_OPEN_CALLS_MAX} calls of this job run, its limit; wait until one has ended"
            raise Problem(429, "job_busy", message, headers={"Retry-After": "1"})
        if job.settled and workload > 0:
            idle = config.job_idle_seconds
            message = f"the job had no running call for {idle:g} s and takes no more work; route again"
            raise Problem(410, "job_settled", message)
        if job.used + workload > job.cost * config.cost_tolerance + _ROUNDING:
            raise Problem(
                403,
                "ticket_cost_exceeded",
                f"this call's workload is {workload:g}, the job has used {job.used:g} of its ticket's {job.cost:g};"
                " route again with a cost that covers the whole job",
            )
        job.calls += 1
        job.used += workload

    def record(self, ticket: str) -> dict[str, Any]:
        """The state of a job, for its client.

        Raises:
            Problem: 410, it has ended.
        """
        job = self._found(ticket)
        return {
            "begun": True,
            "calls": job.calls,
            "calls_max": self._config.job_calls_max,
            "running": len(job.running),
            "cost": job.cost,
            "used": job.used,
            "settled": job.settled,
            "ends_in_seconds": max(0.0, job.opened_at + self._config.job_seconds_max - time.monotonic()),
        }

    def record_of_unused(self, cost: float, valid_seconds: float) -> dict[str, Any]:
        """The state of a job before its first call, which must come while its ticket is valid."""
        return {
            "begun": False,
            "calls": 0,
            "calls_max": self._config.job_calls_max,
            "running": 0,
            "cost": cost,
            "used": 0.0,
            "settled": False,
            "ends_in_seconds": max(0.0, valid_seconds),
        }

    def end(self, ticket: str) -> None:
        """End a job at once.

        Raises:
            Problem: 410, it has ended.
        """
        self._found(ticket)
        self._end(_digest(ticket))

    def end_all(self, problem: Problem) -> None:
        """End every job; `problem` answers the running calls."""
        for key in list(self._open):
            self._end(key, problem)

    async def sweep(self) -> None:
        """Settle jobs that are idle, and end those that are too old. Runs until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = time.monotonic()
            settled = len(self._open) - self._unsettled
            for key, job in list(self._open.items()):
                if now - job.opened_at >= self._config.job_seconds_max or (
                    settled > _SETTLED_MAX and job.settled
                ):
                    self._end(key)
                    settled -= job.settled
                elif not job.running and now - job.idle_since >= self._config.job_idle_seconds:
                    self._settle(job)

    def _found(self, ticket: str) -> Job:
        job = self.find(ticket)
        if job is None:
            raise _ENDED
        return job

    def _end(self, key: bytes, problem: Problem = _ENDED) -> None:
        job = self._open.pop(key, None)
        if job is None:
            return
        for call in list(job.running):
            call.cancel(Outcome.CANCELLED, problem)
        self._settle(job)

    def _settle(self, job: Job) -> None:
        if job.settled:
            return
        job.settled = True
        self._unsettled -= 1
        self._counts.finish(job.work, job.outcome)
        if not self._unsettled:
            self._on_empty()


def _digest(ticket: str) -> bytes:
    """The key of a ticket. The time of a lookup by digest tells nothing about other tickets."""
    return hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).digest()
