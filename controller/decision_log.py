"""The decision log: the reasons of decisions, for operators. Bounded, and kept by continue-as-new."""

from collections.abc import Iterable, Mapping

from stoker_wire.messages import DecisionLine
from stoker_wire.parsing.limits import (
    DECISION_REASON_BYTES_MAX,
    DECISION_SUBJECT_BYTES_MAX,
    excerpt,
    shortened,
)

LINES_KEPT = 150
"""About 30 KB: two days of an endpoint with few events, or one hour of many. The workflow history has all lines."""


class DecisionLog:
    """The last decisions, oldest first."""

    def __init__(self, lines: Iterable[DecisionLine] = ()) -> None:
        self._lines = list(lines)[-LINES_KEPT:]

    def note(
        self,
        at: float,
        kind: str,
        reason: str,
        *,
        subject: str = "",
        numbers: Mapping[str, float] | None = None,
        level: int = 0,
        workergroup_id: int = 0,
    ) -> None:
        """Append a line. A repeat of the last line only updates its time and numbers."""
        line = DecisionLine(
            at=at,
            kind=kind,
            subject=shortened(subject, DECISION_SUBJECT_BYTES_MAX),
            reason=excerpt(reason, DECISION_REASON_BYTES_MAX),
            numbers=dict(numbers or {}),
            level=level,
            workergroup_id=workergroup_id,
        )
        if self._lines and _content(self._lines[-1]) == _content(line):
            self._lines.pop()
        self._lines.append(line)
        del self._lines[:-LINES_KEPT]

    def tail(self, count: int, *, level_max: int = 3) -> list[DecisionLine]:
        """The last `count` lines with at most the level `level_max`, oldest first."""
        if count <= 0:
            return []
        return [line for line in self._lines if line.level <= level_max][-count:]

    @property
    def lines(self) -> tuple[DecisionLine, ...]:
        """All lines kept, oldest first."""
        return tuple(self._lines)


def _content(line: DecisionLine) -> tuple[str, str, str, int]:
    return (line.kind, line.subject, line.reason, line.level)
