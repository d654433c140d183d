"""Finds the cause of a model server's failure in the lines of its log."""

import re

from stoker_pyworker.server_config import FailureCause

_SHOWN_CHARS = 200
SEARCHED_CHARS = 4096
"""Of a line. Servers log the prompts of their clients, and a pattern with `.*` may take quadratic time."""
_LINES_MAX = 400
"""Age of a line that may explain an exit: a harmless warning of the start does not. Tracebacks have hundreds of lines."""


_ERROR = re.compile(
    r"\b[A-Z]\w*(Error|Exception)\b: \S|^\s*Value error, \S|^(error|fatal error|fatal|panic): ", re.IGNORECASE
)
_NO_ERROR = re.compile(r"\b(WARNING|WARN|INFO|DEBUG)\b|: \d+ validation errors? for ")
"""The level of a line that quotes an error without being one, and pydantic's heading: the error follows."""


class CauseFinder:
    """Remembers which causes the log of one run has revealed."""

    def __init__(self, causes: tuple[FailureCause, ...]) -> None:
        self._causes = causes
        self._any = re.compile("|".join(f"(?:{cause.pattern})" for cause in causes) or r"(?!)", re.IGNORECASE)
        self._patterns = [re.compile(cause.pattern, re.IGNORECASE) for cause in causes]
        self._found: dict[int, tuple[int, str]] = {}
        """The number and text of the last line that matched, by cause."""
        self._lines = 0
        self._error: tuple[int, str] | None = None

    def reset(self) -> None:
        """Forget the lines of an earlier run, or of a start that has succeeded."""
        self._found.clear()
        self._error = None

    def see(self, line: str) -> None:
        """Compare a line with the causes."""
        self._lines += 1
        line = line[:SEARCHED_CHARS]
        if not self.error and _ERROR.search(line) and not _NO_ERROR.search(line):
            self._error = (self._lines, line[:_SHOWN_CHARS])
        if self._any.search(line) is None:
            return
        for index, pattern in enumerate(self._patterns):
            if pattern.search(line):
                self._found[index] = (self._lines, line[:_SHOWN_CHARS])

    @property
    def found(self) -> tuple[FailureCause, str] | None:
        """The most specific cause among the last lines, and its line."""
        recent = [index for index, (at, _) in self._found.items() if self._is_recent(at)]
        if not recent:
            return None
        return self._causes[min(recent)], self._found[min(recent)][1]

    @property
    def error(self) -> str:
        """The first error among the last lines, if no cause is known: later ones are often its consequences."""
        return self._error[1] if self._error is not None and self._is_recent(self._error[0]) else ""

    def _is_recent(self, line: int) -> bool:
        return self._lines - line < _LINES_MAX
