"""Which process of a worker a report comes from: a report of a process that has ended says nothing of the next one.

Each worker process draws an id at its start and sends it with every report, with its age. The official worker sends
neither: `WorkerStatus.process` names its process by its loading time, which no other process has.
"""

from dataclasses import dataclass
from typing import Self

from policy.tuning import DEFAULT_TUNING

_ENDED_KEPT = 4
_CHARS_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The process behind a worker. Times are Unix seconds."""

    id: str = ""
    """Empty: no process was heard since the last one was ended, or it has no name."""
    started_at: float = 0.0
    """0: not known."""
    ended: tuple[str, ...] = ()
    """Processes before it, the latest last."""
    ended_at: float = 0.0
    """When the last restart or stop was ordered; 0: never."""

    def is_late(
        self, process: str, started_at: float, *, reported_at: float, quiet_since: float | None
    ) -> bool:
        """Whether a report is of an earlier process.

        `quiet_since` is when the current process was last heard; None: the earlier one was ended and the next is
        awaited, and then no report of the earlier one counts. Otherwise an earlier process counts again once the
        current one has been quiet for `Tuning.late_report_seconds`: their order was a mistake.
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
        """Whether a report that is not late comes from another process than the one that was heard before."""
        return bool(self.id) and process != self.id

    def has_ended(self, process: str) -> bool:
        """Whether this is the name of an earlier process."""
        return bool(process) and process in self.ended

    def heard(self, process: str, started_at: float) -> Self:
        """After a report that is not late."""
        if process == self.id:
            # each report gives a bound, because it took some time to arrive; the earliest is the closest
            if 0 < started_at < self.started_at or not self.started_at:
                return self._with(process, started_at, self.ended, self.ended_at)
            return self
        ended = self._ended_with(self.id) if self.id else self.ended
        ended = tuple(each for each in ended if each != process)
        return self._with(process[:_CHARS_MAX], started_at, ended, self.ended_at)

    def ordered_to_end(self, at: float) -> Self:
        """After a stop, a restart or a release was ordered, or the marketplace has said that it stopped."""
        return self._with("", 0.0, self._ended_with(self.id) if self.id else self.ended, at)

    def _ended_with(self, process: str) -> tuple[str, ...]:
        return (*(each for each in self.ended if each != process), process)[-_ENDED_KEPT:]

    def _with(self, process: str, started_at: float, ended: tuple[str, ...], ended_at: float) -> Self:
        return type(self)(id=process, started_at=started_at, ended=ended, ended_at=ended_at)
