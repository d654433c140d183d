"""Fault injection: failures of real marketplaces, produced on request."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from stoker_wire.base import StrictModel


class FaultKind(StrEnum):
    """The faults that can be injected."""

    SLOW_PULL = "slow_pull"
    """The next image pull is `factor` times slower."""
    LOAD_FAILURE = "load_failure"
    """The process of the next start exits at once."""
    OFFER_GONE = "offer_gone"
    """The next create call finds its offer taken."""
    RATE_LIMITED = "rate_limited"
    """The next call gets a 429, with Retry-After if `retry_after_s` is set."""
    SERVER_ERROR = "server_error"
    """The next call gets a 500."""
    LOST_ANSWER = "lost_answer"
    """The next create call (or any call to `path`) succeeds, but its connection closes before the response."""
    LIST_EMPTY = "list_empty"
    """The next list of instances is empty although instances exist."""
    OUTBID = "outbid"
    """The marketplace stops a running instance."""
    HOST_DIES = "host_dies"
    """The processes of a running instance are killed and it is offline, for `seconds` or until faults are cleared."""
    STUCK_SCHEDULING = "stuck_scheduling"
    """The next start waits for its machine until faults are cleared."""


class Fault(StrictModel):
    """An armed fault. Empty match fields match everything."""

    fault: FaultKind
    times: int | None = Field(1, ge=1, le=1_000_000)
    """Number of occurrences; None: until cleared."""
    label: str = ""
    """Prefix of the instance's label."""
    machine: str = ""
    """The machine kind's name."""
    instance_id: int | None = None
    path: str = ""
    """Part of the request's path."""
    method: str = ""
    retry_after_s: float | None = Field(None, ge=0, le=3600)
    factor: float = Field(10.0, ge=1, le=10_000)
    seconds: float | None = Field(None, gt=0, le=86_400)

    def matches(self, facts: dict[str, Any]) -> bool:
        """Whether the fault applies to these facts. A missing fact matches only an empty field."""
        return (
            str(facts.get("label") or "").startswith(self.label)
            and self.machine.replace("_", " ") in ("", str(facts.get("machine") or "").replace("_", " "))
            and (self.instance_id is None or self.instance_id == facts.get("instance_id"))
            and self.path in str(facts.get("path") or "")
            and self.method.upper() in ("", str(facts.get("method") or ""))
        )


class Faults:
    """The armed faults, oldest first."""

    def __init__(self) -> None:
        self._armed: list[Fault] = []

    def arm(self, fault: Fault) -> None:
        """Arm a fault."""
        self._armed.append(fault)

    def take(self, kind: FaultKind, **facts: Any) -> Fault | None:
        """The first matching fault, with one occurrence used up; None if no fault matches."""
        for index, fault in enumerate(self._armed):
            if fault.fault is kind and fault.matches(facts):
                if fault.times is not None:
                    left = fault.times - 1
                    self._armed[index : index + 1] = (
                        [fault.model_copy(update={"times": left})] if left else []
                    )
                return fault
        return None

    def armed(self) -> list[Fault]:
        """The faults that are still armed."""
        return list(self._armed)

    def clear(self) -> None:
        """Disarm all faults."""
        self._armed.clear()
