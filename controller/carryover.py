"""Reads the state of the previous run, which another build may have written."""

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import ValidationError

T = TypeVar("T")


def read_handed_on(read: Callable[[Any], T], sent: Any) -> tuple[T, tuple[str, ...]]:
    """Parse `sent` without the fields that this build does not know; returns the value and their names.

    After a rollback the state may hold fields of a newer build. Refusing it would stop a live endpoint whose instances
    are billed.

    Raises:
        ValidationError: it has another fault.
    """
    unknown: list[str] = []
    while True:
        try:
            return read(sent), tuple(unknown)
        except ValidationError as fault:
            locations = [error["loc"] for error in fault.errors() if error["type"] == "extra_forbidden"]
            if not locations:
                raise
            for location in locations:
                sent = _without(sent, location)
                unknown.append(".".join(map(str, location)))


def read_or_forget(
    read: Callable[[Any], T], sent: dict[str, Any], forgettable: frozenset[str]
) -> tuple[T, tuple[str, ...], tuple[str, ...]]:
    """Like `read_handed_on`, but unreadable `forgettable` fields are dropped, too; their names are the third result.

    The run learns such fields again, which is better than a stopped endpoint.

    Raises:
        ValidationError: a required field is invalid.
    """
    forgotten: set[str] = set()
    while True:
        kept = {name: value for name, value in sent.items() if name not in forgotten}
        try:
            value, unknown = read_handed_on(read, kept)
        except ValidationError as fault:
            locations = {str(error["loc"][0]) if error["loc"] else "" for error in fault.errors()}
            if not locations <= forgettable - forgotten:
                raise
            forgotten |= locations
        else:
            return value, unknown, tuple(sorted(forgotten))


def _without(value: Any, location: tuple[int | str, ...]) -> Any:
    """A copy without what is at this location."""
    first, *rest = location
    if not rest:
        return {key: inner for key, inner in value.items() if key != first}
    if isinstance(value, dict):
        return {key: _without(inner, tuple(rest)) if key == first else inner for key, inner in value.items()}
    return [_without(inner, tuple(rest)) if at == first else inner for at, inner in enumerate(value)]
