"""The one error of the little languages."""

from stoker_wire.picklable import PicklableError


class GrammarError(PicklableError, ValueError):
    """Text that cannot be read: what was expected, what came and where, and what to write instead."""

    def __init__(self, message: str, *, position: int | None = None, advice: str = "") -> None:
        self.position = position
        self.advice = advice
        where = "" if position is None else f" (at character {position + 1})"
        super().__init__(f"{message}{where}" + (f"; {advice}" if advice else ""))


def shown(text: object, length_max: int = 40) -> str:
    """A piece of the input for an error message, shortened."""
    said = repr(text)
    return said if len(said) <= length_max else f"{said[: length_max - 1]}…"
