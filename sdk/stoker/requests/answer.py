"""The whole answer to a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from stoker.errors import MalformedAnswer
from stoker.requests.attempts import Placement, RequestAttempts
from stoker.requests.timing import Timing, split_time
from stoker_wire.parsing.ids import read_id
from stoker_wire.parsing.strict_json import NotJson, parse_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A served request: the model's answer, its timing, and the worker that served it."""

    status: int
    content: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    timing: Timing
    worker_id: int
    """The marketplace's instance id; 0 if neither worker nor engine reported it."""
    worker_url: str
    attempts: int
    """Workers tried; 1 when the first one served it."""
    request_idx: int
    idempotency_key: str = field(repr=False)

    @property
    def content_type(self) -> str:
        """The media type without parameters, in lower case."""
        return media_type(self.headers)

    @property
    def text(self) -> str:
        """The body as text; bytes that are not UTF-8 are replaced."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            MalformedAnswer: the body is not JSON.
        """
        try:
            return parse_answer(self.content)
        except NotJson as fault:
            raise MalformedAnswer(
                f"expected JSON from {self.worker_url}, got {self.content_type or 'no content type'} "
                f"starting with {self.text[:80]!r} ({fault}); use .text or .content"
            ) from None

    @property
    def response(self) -> Any:
        """The body by its content type: JSON as Python values, text as str, else bytes."""
        kind = self.content_type
        if kind == "application/json" or kind.endswith("+json") or (not kind and self.content[:1] in b"{["):
            return self.json()
        return self.text if kind.startswith("text/") else self.content


def media_type(headers: Mapping[str, str]) -> str:
    """The content type without parameters, in lower case; "" without the header."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def worker_id_of(response: httpx.Response, placement: Placement) -> int:
    """The id of the worker that answered: as its header gives it, else as the engine routed."""
    reported = read_id(response.headers.get("X-Stoker-Worker", ""))
    return placement.route.worker_id if reported is None else reported


def timing_of(response: httpx.Response, attempts: RequestAttempts) -> Timing:
    """The timing up to now."""
    return split_time(
        total_s=attempts.timer.total_s,
        waited_s=attempts.timer.waited_s,
        lost_s=attempts.timer.lost_s,
        server_timing=response.headers.get("Server-Timing", ""),
    )


def make_answer(response: httpx.Response, attempts: RequestAttempts, placement: Placement) -> Answer:
    """The answer, from a response whose body has been read."""
    return Answer(
        status=response.status_code,
        content=response.content,
        headers=response.headers,
        timing=timing_of(response, attempts),
        worker_id=worker_id_of(response, placement),
        worker_url=placement.route.url,
        attempts=attempts.progress.attempts,
        request_idx=attempts.progress.request_idx,
        idempotency_key=attempts.idempotency_key,
    )
