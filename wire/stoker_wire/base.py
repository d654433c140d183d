"""Base classes of wire types: strict for user input, tolerant for messages of other programs."""

from functools import cache
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from stoker_wire.parsing.numbers import read_number


class _DecimalNumbers(BaseModel):
    """Reads numbers in text as decimal numbers only; pydantic alone also accepts `1_0`, ` +1` and true."""

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_decimal(cls, given: Any) -> Any:
        """Quote values that are not decimal numbers, so that its field's validation fails."""
        if not isinstance(given, dict):
            return given
        odd = {
            name: repr(value)[:42]
            for name, value in given.items()
            if name in _numeric_fields(cls) and _is_odd(value)
        }
        return given | odd if odd else given


def _is_odd(value: Any) -> bool:
    """Whether pydantic would read this value as a number, and JSON would not: `1_0`, true."""
    return type(value) is bool or (type(value) is str and read_number(value) is None)


@cache
def _numeric_fields(model: type[BaseModel]) -> frozenset[str]:
    """Names, aliases included, of the fields that accept a number and no text."""
    names: set[str] = set()
    for name, field in model.model_fields.items():
        kinds = set(get_args(field.annotation)) or {field.annotation}
        has_own_validator = any(isinstance(each, BeforeValidator) for each in field.metadata)
        if kinds <= {int, float, NoneType} and not has_own_validator:
            alias = field.validation_alias
            names |= {name, *(str(each) for each in getattr(alias, "choices", ()))}
    return frozenset(names)


class StrictModel(_DecimalNumbers):
    """User input: unknown fields are refused, because they are probably spelling mistakes."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


class TolerantModel(_DecimalNumbers):
    """A message of another program: unknown fields are ignored, because the peer may be newer."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, populate_by_name=True)
