"""Search strings and dicts → the API's filters, `{field: {op: value}}`.

`gpu_name=RTX_4090 num_gpus>=2 gpu_ram>24` → `{"gpu_name": {"eq": "RTX 4090"}, "num_gpus": {"gte": "2"}, …}`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from market.interface import OfferQuery
from market.query.errors import GrammarError, shown
from market.query.order import ALIASES, parse_order
from stoker_wire.parsing.numbers import finite
from stoker_wire.parsing.strict_json import NotJson, parse_json

Filters = dict[str, dict[str, Any]]

MULTIPLIERS = {"cpu_ram": 1000.0, "gpu_ram": 1000.0, "gpu_total_ram": 1000.0, "duration": 86400.0}
"""Factors from the units of search strings to those of the API: GB → MB, days → seconds."""

OPERATORS = {
    "=": "eq",
    "==": "eq",
    "eq": "eq",
    "!=": "neq",
    "neq": "neq",
    "noteq": "neq",
    "not eq": "neq",
    ">": "gt",
    "gt": "gt",
    ">=": "gte",
    "gte": "gte",
    "<": "lt",
    "lt": "lt",
    "<=": "lte",
    "lte": "lte",
    "in": "in",
    "nin": "notin",
    "notin": "notin",
    "not in": "notin",
}
ORDERINGS = frozenset({"gt", "gte", "lt", "lte"})
LISTS = frozenset({"in", "notin"})
WILDCARDS = frozenset({"any", "?", "*"})
LITERALS: dict[str, bool | None] = {"true": True, "false": False, "none": None, "null": None}

SETTINGS = frozenset(
    {
        "order",
        "type",
        "limit",
        "allocated_storage",
        "extra_ids",
        "disable_bundling",
        "resource_type",
        "client_id",
    }
)
"""Keys of a query object that are not filters."""

_FIELD = re.compile(r"[A-Za-z0-9_]+")
_SYMBOL = re.compile(r"\s*(==|!=|>=|<=|=|>|<)(?![=<>!])")
_WORD_OPERATOR = re.compile(r"\s+(not\s+eq|not\s+in|noteq|notin|neq|nin|eq|gte|gt|lte|lt|in)(?=[\s\[])")
_VALUE = re.compile(r"\s*(\"[^\"]*\"|'[^']*'|\[[^\]]*\]|[^\s\"'\[\]]+)(?=\s|$)")
_JOINED = re.compile(r"(?<![,;&|])(?P<by>[,;&|]+)(?=[A-Za-z0-9_]+(?:==|!=|>=|<=|=|>|<))|(?P<twice>[=<>])")
"""In an unquoted value: a separator before a second term, or a second operator."""
_COMMA = re.compile(r",(?!_)")
"""In an unquoted value. A comma before a blank (`_`) is part of a name: `geolocation=Sweden,_SE`."""
_BLANKS = re.compile(r"\s*")

_ADVICE = "write `field operator value`, for example `gpu_name=RTX_4090 num_gpus>=2`"


def parse_search(text: str, *, defaults: Mapping[str, Mapping[str, Any]] | None = None) -> Filters:
    """The filters of a search string, added to `defaults`; a given field replaces its default.

    `field=any` (or `?`, `*`) removes the field and its default. Raises GrammarError.
    """
    given: Filters = {}
    removed: set[str] = set()
    at = _skip(text, 0)
    while at < len(text):
        field, operator, value, start, at = _term(text, at)
        if operator == "eq" and value in WILDCARDS:
            given.pop(field, None)
            removed.add(field)
        else:
            removed.discard(field)
            given.setdefault(field, {})[operator] = _converted(field, operator, value, start)
        at = _skip(text, at)
    base = {field: dict(ops) for field, ops in (defaults or {}).items() if field not in removed}
    return base | given


def parse_filters(params: Any, *, defaults: Mapping[str, Mapping[str, Any]] | None = None) -> Filters:
    """The filters of `search_params`: a search string, a dict, or a list of dicts that must all match.

    A dict uses the API's own units (MB, seconds). Raises GrammarError.
    """
    params = _from_json(params)
    if isinstance(params, str):
        return parse_search(params, defaults=defaults)
    base: Filters = {field: dict(ops) for field, ops in (defaults or {}).items()}
    if params is None:
        return base
    if isinstance(params, Mapping):
        return base | _from_mapping(params)
    if isinstance(params, list | tuple):
        parts = [_from_mapping(part) if isinstance(part, Mapping) else None for part in params]
        if None in parts:
            raise GrammarError(
                "a list of filters must contain objects only",
                advice='for example [{"verified": {"eq": true}}]',
            )
        return base | merge_filters(*[part for part in parts if part is not None])
    raise GrammarError(
        f"a search must be a string, an object or a list of objects, not {type(params).__name__}",
        advice=_ADVICE,
    )


def _from_json(params: Any) -> Any:
    """Parse an object or list that is given as JSON text, as on a command line."""
    if not isinstance(params, str) or not params.lstrip().startswith(("{", "[")):
        return params
    try:
        return parse_json(params)
    except NotJson:
        raise GrammarError("this begins like JSON but is not valid JSON", advice=_ADVICE) from None


def merge_filters(*parts: Mapping[str, Mapping[str, Any]]) -> Filters:
    """The conjunction of all parts. Of two bounds, the stricter one is kept.

    Raises:
        GrammarError: an operator of a field other than a bound has two different values.
    """
    merged: Filters = {}
    stricter: dict[str, Callable[..., float]] = {"gt": max, "gte": max, "lt": min, "lte": min}
    for part in parts:
        for field, ops in part.items():
            target = merged.setdefault(field, {})
            for operator, value in ops.items():
                if operator not in target or target[operator] == value:
                    target[operator] = value
                elif operator in stricter:
                    target[operator] = stricter[operator](target[operator], value, key=float)
                else:
                    raise GrammarError(
                        f"{field} has two values for {operator}: {shown(target[operator])} and {shown(value)}",
                        advice="keep one of the two",
                    )
    return merged


def query_of(
    params: Any,
    *,
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
    disk_gb: float = 16.0,
    limit: int = 64,
    type: str = "on-demand",  # noqa: A002  the API's own word
) -> OfferQuery:
    """`search_params` as a query. A dict may also set `order`, `limit`, `type` and `allocated_storage`."""
    params = _from_json(params)
    filters = parse_filters(params, defaults=defaults)
    options: dict[str, Any] = dict(params) if isinstance(params, Mapping) else {}
    query = OfferQuery(
        filters=filters,
        limit=_positive_int(options.get("limit"), "limit", limit),
        disk_gb=_number(options["allocated_storage"], "allocated_storage")
        if options.get("allocated_storage") is not None
        else disk_gb,
        type=str(options.get("type") or type),
    )
    return replace(query, order=parse_order(options["order"])) if options.get("order") else query


def _skip(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    return found.end() if found else at


def _term(text: str, at: int) -> tuple[str, str, str, int, int]:
    """The field, operator, raw value, start of the value and end of the term."""
    field = _FIELD.match(text, at)
    if field is None:
        raise GrammarError(f"expected a field name, got {shown(text[at:])}", position=at, advice=_ADVICE)
    name = ALIASES.get(field[0], field[0])
    operator = _SYMBOL.match(text, field.end()) or _WORD_OPERATOR.match(text, field.end())
    if operator is None:
        rest = text[field.end() :].lstrip()
        raise GrammarError(
            f"expected an operator after {shown(field[0])}, got {shown(rest) if rest else 'nothing'}",
            position=field.end(),
            advice="terms are separated by blanks alone, and all of them must hold"
            if field[0].lower() in {"and", "or"}
            else "operators are = != > >= < <= in notin",
        )
    value = _VALUE.match(text, operator.end())
    if value is None:
        rest = text[operator.end() :].lstrip()
        raise GrammarError(
            f"expected a value for {shown(field[0])}, got {shown(rest) if rest else 'nothing'}",
            position=operator.end(),
            advice='write _ for a blank, or quote the value: gpu_name="RTX 4090"',
        )
    operation = OPERATORS[" ".join(operator[1].split())]
    _check_one_value(field[0], operation, value[1], value.start(1))
    return name, operation, value[1], value.start(1), value.end()


def _check_one_value(field: str, operation: str, raw: str, position: int) -> None:
    """Terms that are joined by `,` `;` or `&` instead of blanks would become one value that matches nothing."""
    if raw[0] in "\"'[":
        return
    joined = _JOINED.search(raw)
    if joined is not None:
        first, rest = raw[: joined.start()], raw[joined.end("by") :]
        raise GrammarError(
            f"{field} gets the value {shown(raw)}, which holds another term",
            position=position + joined.start(),
            advice=f"separate terms by blanks: {field} … {first} {rest}; or quote the value",
        )
    if operation in LISTS or operation in ORDERINGS:
        return
    if raw[-1] in ",;&|":
        raise GrammarError(
            f"the value {shown(raw)} of {field} ends with {raw[-1]!r}",
            position=position,
            advice="separate terms by blanks alone; or quote the value",
        )
    if _COMMA.search(raw):
        raise GrammarError(
            f"{field} takes one value here, got {shown(raw)}",
            position=position,
            advice=f"write `{field} in [{raw}]`, or quote a value that holds a comma",
        )


def _converted(field: str, operator: str, raw: str, position: int) -> Any:
    if operator in LISTS:
        inner = raw[1:-1] if raw[0] == "[" else _unquoted(raw)
        items = [_unquoted(item.strip()) for item in inner.split(",")]
        items = [item for item in items if item]
        if not items:
            raise GrammarError(f"{field} {operator} needs at least one value", position=position)
        return [_scalar(field, "eq", item, position) for item in items]
    if raw[0] == "[":
        raise GrammarError(
            f"{field} takes one value here, got a list", position=position, advice=f"write `{field} in {raw}`"
        )
    return _scalar(field, operator, _unquoted(raw), position)


def _scalar(field: str, operator: str, text: str, position: int) -> Any:
    if field == "driver_version" and text.count(".") == 2:
        return driver_number(text, position)
    if field in MULTIPLIERS:
        return _number(text, field, position) * MULTIPLIERS[field]
    if operator in ORDERINGS:
        _number(text, field, position)
        return text
    if text.lower() in LITERALS:
        return LITERALS[text.lower()]
    return text.replace("_", " ")


def driver_number(text: str, position: int | None = None) -> int:
    """`535.86.05` → 535086005, the API's form of driver versions."""
    parts = text.split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts):
        raise GrammarError(f"expected a driver version like 535.86.05, got {shown(text)}", position=position)
    return int("".join(part.zfill(3) for part in parts))


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'" else text


def _number(value: Any, field: str, position: int | None = None) -> float:
    number = finite(value)
    if number is None:
        raise GrammarError(f"{field} must be compared with a number, got {shown(value)}", position=position)
    return number


def _positive_int(value: Any, name: str, default: int) -> int:
    if value is None:
        return default
    number = _number(value, name)
    if number < 1 or number != int(number):
        raise GrammarError(f"{name} must be a whole number of at least 1, got {shown(value)}")
    return int(number)


def _from_mapping(params: Mapping[Any, Any]) -> Filters:
    filters: Filters = {}
    for key, condition in params.items():
        if not isinstance(key, str) or not _FIELD.fullmatch(key):
            raise GrammarError(f"expected a field name, got {shown(key)}", advice="letters, digits and _")
        if key in SETTINGS:
            continue
        field = ALIASES.get(key, key)
        conditions = condition if isinstance(condition, Mapping) else {"eq": condition}
        for operator, value in conditions.items():
            name = OPERATORS.get(operator) if isinstance(operator, str) else None
            if name is None:
                raise GrammarError(
                    f"{field} has the unknown operator {shown(operator)}",
                    advice="use eq, neq, gt, gte, lt, lte, in or notin",
                )
            filters.setdefault(field, {})[name] = _checked(field, name, value)
    return filters


def _checked(field: str, operator: str, value: Any) -> Any:
    scalar = value is None or isinstance(value, str | int | float | bool)
    if operator in LISTS:
        if not isinstance(value, list | tuple) or not all(
            item is None or isinstance(item, str | int | float | bool) for item in value
        ):
            raise GrammarError(f"{field} {operator} takes a list of plain values, got {shown(value)}")
        return list(value)
    if not scalar:
        raise GrammarError(f"{field} {operator} takes one plain value, got {shown(value)}")
    if operator in ORDERINGS:
        if field == "driver_version" and isinstance(value, str) and value.count(".") == 2:
            return driver_number(value)
        _number(value, field)
    return value
