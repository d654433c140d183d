"""What a run is handed by the one before it, which may have been another build's."""

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import ValidationError

T = TypeVar("T")


def read_handed_on(read: Callable[[Any], T], sent: Any) -> tuple[T, tuple[str, ...]]:
    """What `read` makes of it once the fields are left out that this build does not know, and their names.

    A person's unknown field is a spelling mistake. Here it is a newer build's, in whose place this older one was put back:
    refused, a live endpoint would stand still, its instances paid for.

    Raises:
        ValidationError: something else is wrong with it.
    """
    unknown: list[str] = []
    while True:
        try:
            return read(sent), tuple(unknown)
        except ValidationError as fault:
            places = [error["loc"] for error in fault.errors() if error["type"] == "extra_forbidden"]
            if not places:
                raise
            for place in places:
                sent = _without(sent, place)
                unknown.append(".".join(map(str, place)))


def read_or_forget(
    read: Callable[[Any], T], sent: dict[str, Any], forgettable: frozenset[str]
) -> tuple[T, tuple[str, ...], tuple[str, ...]]:
    """The same for a state of which some fields are only memories: those that cannot be read are left out, too, and are the
    third of what is returned. A run that begins them anew is better than one that stands still.

    Raises:
        ValidationError: something is wrong with a field that cannot be done without.
    """
    forgotten: set[str] = set()
    while True:
        kept = {name: value for name, value in sent.items() if name not in forgotten}
        try:
            value, unknown = read_handed_on(read, kept)
        except ValidationError as fault:
            places = {str(error["loc"][0]) if error["loc"] else "" for error in fault.errors()}
            if not places <= forgettable - forgotten:
                raise
            forgotten |= places
        else:
            return value, unknown, tuple(sorted(forgotten))


def _without(value: Any, place: tuple[int | str, ...]) -> Any:
    """A copy without what is at this place."""
    first, *rest = place
    if not rest:
        return {key: inner for key, inner in value.items() if key != first}
    if isinstance(value, dict):
        return {key: _without(inner, tuple(rest)) if key == first else inner for key, inner in value.items()}
    return [_without(inner, tuple(rest)) if at == first else inner for at, inner in enumerate(value)]
