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


def _without(value: Any, place: tuple[int | str, ...]) -> Any:
    """A copy without what is at this place."""
    first, *rest = place
    if not rest:
        return {key: inner for key, inner in value.items() if key != first}
    if isinstance(value, dict):
        return {key: _without(inner, tuple(rest)) if key == first else inner for key, inner in value.items()}
    return [_without(inner, tuple(rest)) if at == first else inner for at, inner in enumerate(value)]
