"""Named keys of an endpoint: one for each client, with limits and a priority class.

The text of a key is stored nowhere. The endpoint's workflow knows its SHA-256 only.
"""

import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from stoker_wire.base import StrictModel
from stoker_wire.parsing.limits import KEY_NAME_CHARS_MAX

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9 _.@-]*[A-Za-z0-9_])?")


def _is_name(text: str) -> str:
    if len(text) > KEY_NAME_CHARS_MAX or _NAME.fullmatch(text) is None:
        raise ValueError(
            f"expected 1 to {KEY_NAME_CHARS_MAX} letters, digits, `_`, `-`, `.`, `@` and inner blanks"
        )
    return text


KeyName = Annotated[str, AfterValidator(_is_name)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Priority(StrEnum):
    """A class of requests. While requests queue, each class gets four times the share of the next one."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class KeyLimits(StrictModel):
    """Limits of the requests of one key."""

    load_per_second: float | None = Field(None, gt=0, le=1e12)
    """Load per second on average; ten seconds of it at once. None: no limit."""

    dollars_per_day: float | None = Field(None, gt=0, le=1e9)
    """Dollars per UTC day: the time that the requests take on their workers, at the workers' prices. None: no limit."""

    priority: Priority = Priority.NORMAL
    """The class of its requests while they queue: `high`, `normal` or `low`."""


class ClientKey(KeyLimits):
    """A named key as it is stored."""

    name: KeyName
    digest: Digest
    """SHA-256 of its text, hexadecimal."""
    created_at: float = Field(0.0, ge=0)
    """Unix seconds."""


class KeyEdit(StrictModel):
    """A change of an endpoint's named keys. It never contains the text of a key."""

    op: Literal["create", "change", "revoke"]
    name: KeyName
    digest: Digest | None = None
    """Of a new key."""
    limits: KeyLimits = KeyLimits()
    """Given fields change; a null removes the limit. Absent fields of an existing key stay as they are."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if (self.digest is not None) != (self.op == "create"):
            raise ValueError("digest: is required for a new key, and only then")
        return self

    def given(self) -> dict[str, Any]:
        """The limits that were given."""
        return {name: getattr(self.limits, name) for name in self.limits.model_fields_set}

    def message(self) -> dict[str, Any]:
        """The update for the workflow."""
        limits = self.limits.model_dump(mode="json", exclude_unset=True)
        return self.model_dump(mode="json", exclude_none=True, exclude={"limits"}) | {"limits": limits}
