"""The two attitudes of a wire type: strict where a person types, tolerant where an official peer sends."""

from functools import cache
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from stoker_wire.parsing.numbers import read_number


class _Strict(BaseModel):
    """Numbers that come as text are decimal numbers: pydantic's own reading also takes `1_0` and ` +1`."""

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_decimal(cls, given: Any) -> Any:
        """Quotes a text that is not a decimal number, so that its field refuses it by name."""
        if not isinstance(given, dict):
            return given
        odd = {
            name: repr(value[:40])
            for name, value in given.items()
            if type(value) is str and name in _numeric_fields(cls) and read_number(value) is None
        }
        return given | odd if odd else given


@cache
def _numeric_fields(model: type[BaseModel]) -> frozenset[str]:
    """Names, as a peer writes them, of the fields that hold a number and no text."""
    names: set[str] = set()
    for name, field in model.model_fields.items():
        kinds = set(get_args(field.annotation)) or {field.annotation}
        read_otherwise = any(isinstance(each, BeforeValidator) for each in field.metadata)
        if kinds <= {int, float, NoneType} and not read_otherwise:
            alias = field.validation_alias
            names |= {name, *(str(each) for each in getattr(alias, "choices", ()))}
    return frozenset(names)


class StrictModel(_Strict):
    """What a person types: an unknown field is a spelling mistake, and is refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


class TolerantModel(_Strict):
    """What a peer sends: a newer peer may say more than we know, and what it says is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, populate_by_name=True)
