"""Matches offers against filters and sorts them. Numeric text is compared as numbers."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from market.query.errors import GrammarError
from market.query.order import Order
from market.query.search import driver_number
from stoker_wire.parsing.numbers import finite

Row = TypeVar("Row", bound=Mapping[str, Any])


def matches(filters: Mapping[str, Mapping[str, Any]], offer: Mapping[str, Any]) -> bool:
    """Whether the offer passes every filter. A missing field passes only `neq`, `notin` and `eq null`."""
    return all(
        _holds(operator, offer.get(field), wanted)
        for field, conditions in filters.items()
        for operator, wanted in conditions.items()
    )


def sorted_by(order: Order, rows: Iterable[Row]) -> list[Row]:
    """The rows in order. Rows without the field come last in both directions."""
    ordered = list(rows)
    for field, direction in reversed(order):
        known = [row for row in ordered if row.get(field) is not None]
        unknown = [row for row in ordered if row.get(field) is None]

        def key(row: Row, field: str = field) -> tuple[int, float, str]:
            number = _number(row[field])
            return (1, 0.0, str(row[field])) if number is None else (0, number, "")

        known.sort(key=key, reverse=direction == "desc")
        ordered = known + unknown
    return ordered


def _holds(operator: str, value: Any, wanted: Any) -> bool:
    if operator == "eq":
        return _equal(value, wanted)
    if operator == "neq":
        return not _equal(value, wanted)
    if operator in ("in", "notin"):
        found = any(_equal(value, item) for item in wanted)
        return found == (operator == "in")
    number, bound = _number(value), _number(wanted)
    if number is None or bound is None:
        return False
    if operator == "gt":
        return number > bound
    if operator == "gte":
        return number >= bound
    if operator == "lt":
        return number < bound
    if operator == "lte":
        return number <= bound
    raise GrammarError(f"unknown operator {operator!r}")


def _equal(value: Any, wanted: Any) -> bool:
    if value is None or wanted is None:
        return value is wanted
    if isinstance(value, bool) or isinstance(wanted, bool):
        return _truth(value) is not None and _truth(value) == _truth(wanted)
    left, right = _number(value), _number(wanted)
    if left is not None and right is not None:
        return left == right
    return _with_blanks(value) == _with_blanks(wanted)


def _with_blanks(value: Any) -> str:
    """The text with `_` as blanks, which search strings write as `_`."""
    return str(value).replace("_", " ")


def _truth(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    return {"true": True, "false": False, "1": True, "0": False}.get(str(value).lower())


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str) and value.count(".") == 2:
        try:
            return float(driver_number(value))
        except GrammarError:
            return None
    return finite(value)
