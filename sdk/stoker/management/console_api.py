"""Calls of the engine's console API, and the reading of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from stoker.engine import Engine
from stoker.errors import Invalid, MalformedAnswer, Refused
from stoker.management.records import Logs
from stoker_wire.errors.problem import describe
from stoker_wire.parsing.ids import read_id

M = TypeVar("M", bound=BaseModel)

ID_PREFIX = "id:"
"""Marks a text as an id."""


class ConsoleApi:
    """Calls with an account's key."""

    def __init__(self, engine: Engine, key: str) -> None:
        self._engine = engine
        self._key = key

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        what: str = "",
        repeatable: bool = True,
        **params: str,
    ) -> Any:
        return await self._engine.call(
            method, path, key=self._key, body=body, params=params or None, what=what, repeatable=repeatable
        )

    async def _post_for_rows(
        self, path: str, model: type[M], body: Mapping[str, Any], *, key: str
    ) -> list[M]:
        answer = await self._call("POST", path, body)
        if isinstance(answer, dict) and answer.get("error"):
            raise Refused(
                str(answer.get("error_msg") or answer["error"]), status=200, code=str(answer["error"])
            )
        return read_rows(model, answer, key, path)

    async def _post_for_logs(self, path: str, number: int, tail: int | None) -> Logs:
        if tail is not None and tail < 1:
            raise Invalid(f"tail is {tail}; expected at least 1")
        answer = await self._call("POST", path, {"id": number} | ({} if tail is None else {"tail": tail}))
        return _read(Logs, answer, path)


def endpoint_candidates(endpoint: str | int) -> tuple[str | int, ...]:
    """The names and ids that the argument may stand for, by precedence: a text is a name, a number an id.

    Raises:
        Invalid: the argument is neither.
    """
    if isinstance(endpoint, bool) or not isinstance(endpoint, str | int):
        raise Invalid(f"an endpoint is given by its name (a text) or its id (a number), got {endpoint!r:.80}")
    if isinstance(endpoint, int):
        return (endpoint,)
    if endpoint.startswith(ID_PREFIX):
        number = read_id(endpoint.removeprefix(ID_PREFIX))
        if number is None:
            raise Invalid(f"{ID_PREFIX} is followed by digits, got {endpoint!r:.80}")
        return (number,)
    number = read_id(endpoint)
    return (endpoint,) if number is None else (endpoint, number)


def rows_of(answer: Any, key: str, path: str) -> list[Any]:
    """The list under `key`, or the answer itself if it is a list.

    Raises:
        MalformedAnswer: no list.
    """
    rows = answer.get(key) if isinstance(answer, dict) else answer
    if not isinstance(rows, list):
        raise MalformedAnswer(f"{path} answered without a list of {key}; is this address a stoker engine?")
    return rows


def read_rows(model: type[M], answer: Any, key: str, path: str) -> list[M]:
    """The rows of a list. A row that cannot be read becomes a record with the reason in `broken`.

    Raises:
        MalformedAnswer: no row can be read.
    """
    records: list[M] = []
    first_fault = ""
    for row in rows_of(answer, key, path):
        try:
            records.append(model.model_validate(row))
        except ValidationError as fault:
            first_fault = first_fault or describe(fault)
            if isinstance(row, dict) and type(row.get("id")) is int:  # JSON's true and false are no ids
                records.append(_unreadable(model, row, describe(fault)))
    if first_fault and not records:
        raise MalformedAnswer(f"{path} answered a {model.__name__} that cannot be read: {first_fault}")
    return records


def _unreadable(model: type[M], given: Mapping[str, Any], fault: str) -> M:
    """A record with the id and the name of a row that cannot be read, and the reason."""
    name = (
        {"endpoint_name": str(given.get("endpoint_name", "?"))}
        if "endpoint_name" in model.model_fields
        else {}
    )
    return model.model_validate({"id": given["id"], "broken": f"cannot be read: {fault}"} | name)


def _read(model: type[M], row: Any, path: str) -> M:
    try:
        return model.model_validate(row)
    except ValidationError as fault:
        raise MalformedAnswer(
            f"{path} answered a {model.__name__} that cannot be read: {describe(fault)}"
        ) from None
