"""The state of a request while its caller waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from stoker_wire.route import Waiting


class RequestStatus(StrEnum):
    """The states of a request, by the names of the official client."""

    NEW = "New"
    QUEUED = "Queued"
    """The engine was asked for a worker."""
    POLLING = "Polling"
    """The engine answered "wait" and is polled."""
    IN_PROGRESS = "In Progress"
    """A worker has the request."""
    RETRYING = "Retrying"
    """A worker refused or dropped the request, or the engine did not answer; another attempt follows."""
    COMPLETE = "Complete"
    CANCELLED = "Cancelled"
    ERRORED = "Errored"

    @property
    def finished(self) -> bool:
        """Whether this state is final."""
        return self in {RequestStatus.COMPLETE, RequestStatus.CANCELLED, RequestStatus.ERRORED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Why a request waits; the argument of `on_wait`."""

    reason: str
    """The engine's reason code (`busy`, `booting`, `recruiting`, `no_capacity`, …); `engine`: it did not answer."""
    status: str
    """The reason as a sentence."""
    position: int = 0
    """Requests before this one."""
    eta_s: float | None = None
    waited_s: float = 0.0

    def __str__(self) -> str:
        """The sentence."""
        return self.status


OnWait = Callable[[Wait], None]


@dataclass(slots=True)
class Progress:
    """A request's state; its attempts update it."""

    on_wait: OnWait | None = None
    status: RequestStatus = RequestStatus.NEW
    wait: Wait | None = None
    """The last reason to wait; None once a worker has the request."""
    attempts: int = 0
    """Workers tried, the present one included."""
    worker_url: str = ""
    request_idx: int = 0

    def report_wait(self, wait: Wait) -> None:
        """Store the reason to wait and call `on_wait`."""
        self.wait = wait
        if self.on_wait is not None:
            self.on_wait(wait)

    def describe(self) -> tuple[str, str]:
        """The reason code and the sentence for a request that has not ended."""
        if self.status is RequestStatus.IN_PROGRESS:
            return "worker", f"the worker {self.worker_url} had it and had not finished"
        if self.wait is not None:
            return self.wait.reason, self.wait.status
        if self.status is RequestStatus.NEW:
            return "new", "it had not been sent yet"
        return "engine", "the engine had not answered"


def wait_of(answer: Waiting, waited_s: float) -> Wait:
    """The engine's answer "wait" as the caller reads it."""
    return Wait(
        reason=answer.reason,
        status=answer.status,
        position=answer.position,
        eta_s=answer.eta_s,
        waited_s=waited_s,
    )
