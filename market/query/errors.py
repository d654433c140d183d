"""The error of the grammars."""

from stoker_wire.errors.picklable import PicklableError


class GrammarError(PicklableError, ValueError):
    """Text that cannot be parsed. The message names what was expected, what was found and where, and what to write."""

    def __init__(self, message: str, *, position: int | None = None, advice: str = "") -> None:
        self.position = position
        self.advice = advice
        where = "" if position is None else f" (at character {position + 1})"
        super().__init__(f"{message}{where}" + (f"; {advice}" if advice else ""))


def shown(text: object, length_max: int = 40) -> str:
    """The representation of a piece of input for an error message, shortened."""
    text = repr(text)
    return text if len(text) <= length_max else f"{text[: length_max - 1]}…"
