"""The error response of every stoker server.

The body is `{"success": false, "error": <code>, "msg": <sentence>, "error_msg": <sentence>}`: the official CLI prints
`msg`, the official clients of the engine read `error` and `error_msg`.
"""

from typing import Any

from stoker_wire.errors.picklable import PicklableError
from stoker_wire.security.redaction import is_secret_name

FAULTS_LISTED_MAX = 8
"""Number of validation faults that an error message lists; further ones are counted."""


class Problem(PicklableError, Exception):
    """An error with the HTTP status of its response, a code, and a message that says what to do."""

    def __init__(
        self, status: int, code: str, message: str, *, headers: dict[str, str] | None = None
    ) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}
        super().__init__(message)

    def body(self) -> dict[str, Any]:
        """The JSON body of the response."""
        return {"success": False, "error": self.code, "msg": self.message, "error_msg": self.message}

    def __repr__(self) -> str:
        return f"<Problem {self.status} {self.code}: {self.message}>"


OWN_CHECK = "Value error, "
"""What pydantic writes before the message of a check of ours."""


def describe(fault: Exception) -> str:
    """A pydantic ValidationError as one sentence: field, expected value and received value."""
    errors = getattr(fault, "errors", None)
    if not callable(errors):
        return str(fault)
    sentences = []
    found = errors(include_url=False)
    for error in found[:FAULTS_LISTED_MAX]:
        where = ".".join(str(part) for part in error["loc"]) or "body"
        got = error.get("input")
        hidden = (
            error["type"] == "missing" or isinstance(got, dict | list) or is_secret_name(where.split(".")[-1])
        )
        received = "" if hidden else f" (got {got!r:.80})"
        message = error["msg"].removeprefix(OWN_CHECK)
        sentences.append(f"{where}: {message}{received}")
    if len(found) > FAULTS_LISTED_MAX:
        sentences.append(f"and {len(found) - FAULTS_LISTED_MAX} more")
    return "; ".join(sentences)
