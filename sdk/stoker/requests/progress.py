"""What a request is doing while its caller waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from stoker_wire.route import Waiting


class RequestStatus(StrEnum):
    """The life of a request, in the words of the official client."""

    NEW = "New"
    QUEUED = "Queued"
    """The engine was asked for a worker."""
    POLLING = "Polling"
    """The engine said to wait, and is asked again."""
    IN_PROGRESS = "In Progress"
    """A worker has it."""
    RETRYING = "Retrying"
    """A worker refused or dropped it, or the engine did not answer; it is tried again."""
    COMPLETE = "Complete"
    CANCELLED = "Cancelled"
    ERRORED = "Errored"

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self in {RequestStatus.COMPLETE, RequestStatus.CANCELLED, RequestStatus.ERRORED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Why a request waits, as `on_wait` is told."""

    reason: str
    """The engine's word (`busy`, `booting`, `recruiting`, `no_capacity`, …), or `engine`: it did not answer."""
    status: str
    """The same as a sentence."""
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
    """A request's state, kept up to date by the loop that carries it."""

    on_wait: OnWait | None = None
    status: RequestStatus = RequestStatus.NEW
    wait: Wait | None = None
    """The last reason to wait; None once a worker has it."""
    attempts: int = 0
    """Workers tried, the present one included."""
    worker_url: str = ""
    request_idx: int = 0

    def waits(self, wait: Wait) -> None:
        """Note why it waits, and tell the caller."""
        self.wait = wait
        if self.on_wait is not None:
            self.on_wait(wait)

    def describe(self) -> tuple[str, str]:
        """What it is waiting for: a word and a sentence."""
        if self.status is RequestStatus.IN_PROGRESS:
            return "worker", f"the worker {self.worker_url} had it and had not finished"
        if self.wait is not None:
            return self.wait.reason, self.wait.status
        if self.status is RequestStatus.NEW:
            return "new", "it had not been sent yet"
        return "engine", "the engine had not answered"


def wait_of(answer: Waiting, waited_s: float) -> Wait:
    """The engine's answer as the caller reads it."""
    return Wait(
        reason=answer.reason,
        status=answer.status,
        position=answer.position,
        eta_s=answer.eta_s,
        waited_s=waited_s,
    )
