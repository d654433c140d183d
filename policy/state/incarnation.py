"""Worker processes: tells reports of the current process from late reports of an ended one.

Each worker process chooses a random id at its start and sends it and its age with every report. The official worker
sends neither: `WorkerStatus.process` derives an id from its loading time, which is unique in practice.
"""

from dataclasses import dataclass, replace
from typing import Self

from policy.tuning import DEFAULT_TUNING

_ENDED_KEPT = 4
_CHARS_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The process behind a worker. Times are Unix seconds."""

    id: str = ""
    """Empty: no report since the last process ended, or the process has no id."""
    started_at: float = 0.0
    """0: unknown."""
    ended: tuple[str, ...] = ()
    """Ids of ended processes, the latest last."""
    ended_at: float = 0.0
    """When the last restart or stop was ordered; 0: never."""

    def is_late(
        self, process: str, started_at: float, *, reported_at: float, quiet_since: float | None
    ) -> bool:
        """Whether a report comes from an earlier process and must be ignored.

        `quiet_since` is the time of the current process's last report. None: no report since the last process ended,
        so reports of earlier processes never count. Otherwise an earlier process counts again once the current one
        has not reported for `Tuning.late_report_seconds`: the assumed order was wrong.
        """
        if process and process == self.id:
            return False
        earlier = (
            process in self.ended or 0 < started_at < self.started_at - DEFAULT_TUNING.process_order_seconds
        )
        return earlier and (
            quiet_since is None or reported_at <= quiet_since + DEFAULT_TUNING.late_report_seconds
        )

    def is_replaced_by(self, process: str) -> bool:
        """Whether a report that is not late comes from a new process."""
        return bool(self.id) and process != self.id

    def has_ended(self, process: str) -> bool:
        """Whether this is the id of an ended process."""
        return bool(process) and process in self.ended

    def with_report(self, process: str, started_at: float) -> Self:
        """The process after a report that is not late."""
        if process == self.id:
            # Reports take time to arrive, so the earliest start time is the most accurate.
            if 0 < started_at < self.started_at or not self.started_at:
                return replace(self, started_at=started_at)
            return self
        ended = self._ended_with(self.id) if self.id else self.ended
        ended = tuple(each for each in ended if each != process)
        return replace(self, id=process[:_CHARS_MAX], started_at=started_at, ended=ended)

    def with_end(self, at: float) -> Self:
        """The process after a stop, restart or release was ordered, or after the marketplace reported a stop."""
        ended = self._ended_with(self.id) if self.id else self.ended
        return replace(self, id="", started_at=0.0, ended=ended, ended_at=at)

    def _ended_with(self, process: str) -> tuple[str, ...]:
        return (*(each for each in self.ended if each != process), process)[-_ENDED_KEPT:]
