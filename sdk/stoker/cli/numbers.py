"""Arguments of commands: strict numbers (`1_0`, `nan` and `inf` are refused), and errors in plain words."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_args

import typer
from typer.core import TyperGroup

from stoker_wire.errors.problem import OWN_CHECK
from stoker_wire.parsing.numbers import read_number

HELP_OPTIONS = ["-h", "--help"]
_WHOLE = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_DIGITS = re.compile(r"-?[0-9]+", re.ASCII)


class StrictGroup(TyperGroup):
    """A group of commands whose numbers are read strictly."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.context_settings.setdefault("help_option_names", HELP_OPTIONS)
        for command in self.commands.values():
            command.context_settings.setdefault("help_option_names", HELP_OPTIONS)
            for parameter in command.params:
                vars(parameter)["process_value"] = _plainly(parameter)
                if parameter.param_type_name == "argument" and parameter.metavar is None:
                    parameter.metavar = (parameter.name or "").upper()
            for parameter, kind in numeric_parameters(command):
                # Set on the instance: typer offers no public class for it, and `min` and `max` stay in force.
                vars(parameter)["process_value"] = _checked(parameter, kind)


def numeric_parameters(command: Any) -> Iterator[tuple[Any, type]]:
    """The numeric parameters of a command, each with `int` or `float`."""
    if command.callback is None:
        return
    declared = inspect.signature(command.callback, eval_str=True).parameters
    for parameter in command.params:
        if parameter.name in declared and (kind := _number_type(declared[parameter.name].annotation)):
            yield parameter, kind


def _number_type(annotation: Any) -> type | None:
    if annotation in (int, float):
        return annotation  # type: ignore[no-any-return]
    return next((kind for part in get_args(annotation) if (kind := _number_type(part)) is not None), None)


def _plainly(parameter: Any) -> Any:
    """The conversion of a parameter, without pydantic's prefix in its errors."""
    convert = parameter.process_value

    def process_value(context: typer.Context, value: Any) -> Any:
        try:
            return convert(context, value)
        except typer.BadParameter as fault:
            fault.message = fault.message.removeprefix(OWN_CHECK)
            raise

    return process_value


def _checked(parameter: Any, kind: type) -> Any:
    convert = parameter.process_value

    def process_value(context: typer.Context, value: Any) -> Any:
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str) and not _is_plain(text, kind):
                wanted = "a whole number, e.g. 12" if kind is int else "a number, e.g. 12 or 0.5"
                if kind is int and _DIGITS.fullmatch(text):
                    wanted = "a whole number of at most 18 digits"
                raise typer.BadParameter(
                    f"expected {wanted}, not {text[:60]!r}", ctx=context, param=parameter
                )
        return convert(context, value)

    return process_value


def _is_plain(text: str, kind: type) -> bool:
    """Whether the text is a number in decimal notation; `.5` is one on a command line."""
    if kind is int:
        return _WHOLE.fullmatch(text) is not None
    return read_number(f"0{text}" if text.startswith(".") else text) is not None
