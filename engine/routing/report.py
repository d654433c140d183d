"""The last status report of one worker."""

from dataclasses import dataclass
from typing import Self

from stoker_wire.worker_status import WorkerStatus


@dataclass(slots=True, kw_only=True)
class Report:
    """The values of a worker's last status report. The defaults describe a worker without a report.

    Never changed, only replaced. It is not frozen: that would cost 2 µs per report.
    """

    reported_at: float = 0.0
    """When the report arrived, Unix seconds; 0: no report from the current process."""
    url: str = ""
    perf: float = 0.0
    """Benchmarked load per second; 0: not benchmarked yet."""
    loadtime_s: float = 0.0
    """How long the model took to load; 0: not loaded yet."""
    provisional: bool = False
    """The perf is an estimate."""
    download_seconds: float = 0.0
    in_flight: int = 0
    queued: int = 0
    waiting: int | None = None
    """Requests in flight beyond those that the worker serves at its perf, or that wait in its model server; None: it
    did not report its concurrency."""
    end_report_seconds: float = 0.0
    """The worker runs one request at a time and reports its end within this time; 0: it does not promise that."""
    running_load: float = 0.0
    """Declared cost of the request that is running."""
    running_since: float = 0.0
    """When the running request was started, Unix seconds."""
    error: str = ""
    error_everywhere: bool = False
    phase: str = ""
    draining: bool = False
    """The worker itself takes no more requests, for example after SIGTERM."""
    requests_received: int = 0
    """Counted since the start of the worker's process."""
    status: WorkerStatus | None = None
    """The report as it was sent, for the console's tables."""

    @classmethod
    def of(cls, status: WorkerStatus, url: str, now: float) -> Self:
        """Take the values of an authenticated and checked report."""
        return cls(
            reported_at=now,
            url=url,
            perf=status.max_perf,
            loadtime_s=status.loadtime,
            provisional=status.provisional,
            download_seconds=status.download_seconds,
            in_flight=status.num_requests_working,
            queued=status.queued,
            waiting=_waiting(status),
            end_report_seconds=status.end_report_seconds,
            running_load=status.running_load,
            running_since=now - status.running_seconds,
            error=status.error_msg,
            error_everywhere=status.error_everywhere and bool(status.error_msg),
            phase=status.phase,
            draining=status.draining,
            requests_received=status.num_requests_recieved,
            status=status,
        )

    @property
    def served_share(self) -> float:
        """Share of the reported load that is served without waiting; 0 if that is not known."""
        return 1.0 - self.waiting / self.in_flight if self.waiting is not None and self.in_flight else 0.0

    def outdated(self) -> Self:
        """The report of a process that has ended: address, perf and request count, for comparison with the next one."""
        return type(self)(url=self.url, perf=self.perf, requests_received=self.requests_received)


def _waiting(status: WorkerStatus) -> int | None:
    if not status.concurrency:
        return None
    held = status.num_requests_working
    inside = status.queued + (status.model.waiting if status.model is not None else 0)
    return min(held, max(held - status.concurrency, inside, 0))
