"""Problems: what went wrong, as every stoker server says it.

The body is `{"success": false, "error": <code>, "msg": <sentence>, "error_msg": <sentence>}`: the official CLI prints
`msg`, the official clients of the engine read `error` and `error_msg`.
"""

from typing import Any

from stoker_wire.picklable import PicklableError

FAULTS_SAID_MAX = 8
"""Faults of one value that an error names; the rest is counted."""


class Problem(PicklableError, Exception):
    """A fault of the request, with the status to answer and a sentence that says what to do."""

    def __init__(
        self, status: int, code: str, message: str, *, headers: dict[str, str] | None = None
    ) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}
        super().__init__(message)

    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        return {"success": False, "error": self.code, "msg": self.message, "error_msg": self.message}

    def __repr__(self) -> str:
        return f"<Problem {self.status} {self.code}: {self.message}>"


def describe(fault: Exception) -> str:
    """A pydantic ValidationError as one sentence: which field, what was expected, what came."""
    errors = getattr(fault, "errors", None)
    if not callable(errors):
        return str(fault)
    sentences = []
    found = errors(include_url=False)
    for error in found[:FAULTS_SAID_MAX]:
        where = ".".join(str(part) for part in error["loc"]) or "body"
        got = error.get("input")
        said = "" if error["type"] == "missing" or isinstance(got, dict | list) else f" (got {got!r:.80})"
        sentences.append(f"{where}: {error['msg']}{said}")
    if len(found) > FAULTS_SAID_MAX:
        sentences.append(f"and {len(found) - FAULTS_SAID_MAX} more")
    return "; ".join(sentences)
