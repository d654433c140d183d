"""Misbehaviour on demand: what a marketplace of strangers' machines does now and then, done here when asked."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from stoker_wire.base import StrictModel


class FaultKind(StrEnum):
    """What can go wrong."""

    SLOW_PULL = "slow_pull"
    """The next image pull is `factor` times slower."""
    LOAD_FAILURE = "load_failure"
    """The next start's process ends at once."""
    OFFER_GONE = "offer_gone"
    """The next create call finds its offer taken."""
    RATE_LIMITED = "rate_limited"
    """The next call is answered 429, with Retry-After if `retry_after_s` is given."""
    SERVER_ERROR = "server_error"
    """The next call is answered 500."""
    LOST_ANSWER = "lost_answer"
    """The next create call (or any call to `path`) is carried out, and its connection drops before the answer."""
    LIST_EMPTY = "list_empty"
    """The next list of instances is answered without any of them, although they exist."""
    OUTBID = "outbid"
    """A running instance is stopped by the market."""
    HOST_DIES = "host_dies"
    """A running instance's processes are killed and it is offline, for `seconds` or until faults are cleared."""
    STUCK_SCHEDULING = "stuck_scheduling"
    """The next start waits for its machine until faults are cleared."""


class Fault(StrictModel):
    """An armed fault; empty match fields match everything."""

    fault: FaultKind
    times: int | None = Field(1, ge=1, le=1_000_000)
    """How often; None: until cleared."""
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
        """Whether it strikes here; a fact that is not known matches only an empty field."""
        return (
            str(facts.get("label") or "").startswith(self.label)
            and self.machine.replace("_", " ") in ("", str(facts.get("machine") or "").replace("_", " "))
            and (self.instance_id is None or self.instance_id == facts.get("instance_id"))
            and self.path in str(facts.get("path") or "")
            and self.method.upper() in ("", str(facts.get("method") or ""))
        )


class Faults:
    """The armed faults, in the order in which they were armed."""

    def __init__(self) -> None:
        self._armed: list[Fault] = []

    def arm(self, fault: Fault) -> None:
        """From now on."""
        self._armed.append(fault)

    def take(self, kind: FaultKind, **facts: Any) -> Fault | None:
        """The fault that strikes here, counted down; None if all goes well."""
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
        """What is still to come."""
        return list(self._armed)

    def clear(self) -> None:
        """Nothing more goes wrong."""
        self._armed.clear()
