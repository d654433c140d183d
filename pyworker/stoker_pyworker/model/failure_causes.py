"""Finds the cause of a model server's failure in the lines of its log."""

import re

from stoker_pyworker.server_config import FailureCause

_SHOWN_CHARS = 200


class CauseFinder:
    """Remembers which causes the log of one run has revealed."""

    def __init__(self, causes: tuple[FailureCause, ...]) -> None:
        self._causes = causes
        self._any = re.compile("|".join(f"(?:{cause.pattern})" for cause in causes) or r"(?!)", re.IGNORECASE)
        self._patterns = [re.compile(cause.pattern, re.IGNORECASE) for cause in causes]
        self._found: dict[int, str] = {}

    def reset(self) -> None:
        """Forget the lines of an earlier run."""
        self._found.clear()

    def see(self, line: str) -> None:
        """Compare a line with the causes."""
        if self._any.search(line) is None:
            return
        for index, pattern in enumerate(self._patterns):
            if index not in self._found and pattern.search(line):
                self._found[index] = line[:_SHOWN_CHARS]

    @property
    def found(self) -> tuple[FailureCause, str] | None:
        """The most specific cause and its line."""
        if not self._found:
            return None
        index = min(self._found)
        return self._causes[index], self._found[index]
