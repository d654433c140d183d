"""Reads the state of the previous run, which another build may have written."""

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import ValidationError

T = TypeVar("T")


def read_carried_state(read: Callable[..., T], sent: Any) -> tuple[T, tuple[str, ...]]:
    """Parse `sent` without the fields that this build does not know; returns the value and their names.

    After a rollback the state may hold fields of a newer build. Refusing it would stop a live endpoint whose instances
    are billed. `read` is pydantic's `validate_python` or `model_validate`.

    Raises:
        ValidationError: it has another fault.
    """
    try:
        return read(sent), ()
    except ValidationError as fault:
        unknown = [error["loc"] for error in fault.errors() if error["type"] == "extra_forbidden"]
        return read(sent, extra="ignore"), tuple(".".join(map(str, location)) for location in unknown)


def read_or_forget(
    read: Callable[..., T], sent: dict[str, Any], forgettable: frozenset[str]
) -> tuple[T, tuple[str, ...], tuple[str, ...]]:
    """Like `read_carried_state`, but unreadable `forgettable` fields are dropped, too; their names are the third result.

    The run learns such fields again, which is better than a stopped endpoint.

    Raises:
        ValidationError: a required field is invalid.
    """
    try:
        return *read_carried_state(read, sent), ()
    except ValidationError as fault:
        forgotten = {str(error["loc"][0]) if error["loc"] else "" for error in fault.errors()}
        if not forgotten <= forgettable:
            raise
    kept = {name: value for name, value in sent.items() if name not in forgotten}
    return *read_carried_state(read, kept), tuple(sorted(forgotten))
