"""A strict JSON parser for external input.

Python's `json` also accepts NaN, Infinity, lone surrogates and UTF-16, turns 1e999 into infinity, and raises three
kinds of errors. It accepts deep values that other programs cannot serialise.
"""

import json
import re
from typing import Any, NoReturn

DEPTH_MAX = 100
"""Nesting levels of objects and lists. JSON Schemas of tools have about 30; the interpreter's limit is 1,000."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class NotJson(ValueError):
    """The text is not acceptable JSON; the message says why."""


def parse_json(text: str | bytes | bytearray | memoryview) -> Any:
    """The value of a JSON text.

    Raises:
        NotJson: malformed, not UTF-8, nested over DEPTH_MAX, or with a value that JSON does not have.
    """
    try:
        if not isinstance(text, str):
            text = bytes(text).decode("utf-8")
        value = json.loads(text, parse_constant=_constant, parse_float=_float)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as fault:
        raise NotJson(f"byte {fault.start} is not UTF-8") from None
    except UnicodeEncodeError:
        raise NotJson("a lone surrogate: \\ud800 to \\udfff must come in pairs") from None
    except RecursionError:
        raise NotJson(_TOO_DEEP) from None
    except NotJson:
        raise
    except json.JSONDecodeError as fault:
        raise NotJson(str(fault)) from None
    except ValueError:  # the interpreter's limit of digits
        raise NotJson("a number has too many digits") from None
    if is_too_deep(text, value):
        raise NotJson(_TOO_DEEP)
    return value


def parse_answer(text: str | bytes) -> Any:
    """The value of a peer's answer. NaN, Infinity and lone surrogates are accepted, because models produce them.

    Raises:
        NotJson: malformed, not UTF-8, or nested over DEPTH_MAX.
    """
    try:
        value = json.loads(text if isinstance(text, str) else text.decode("utf-8-sig"))
    except UnicodeDecodeError as fault:
        raise NotJson(f"byte {fault.start} is not UTF-8") from None
    except RecursionError:
        raise NotJson(_TOO_DEEP) from None
    except ValueError as fault:
        raise NotJson(str(fault)[:200]) from None
    if is_too_deep(text, value):
        raise NotJson(_TOO_DEEP)
    return value


def is_too_deep(text: str | bytes | memoryview, value: Any) -> bool:
    """Whether the value has more than DEPTH_MAX nesting levels; `text` is its JSON."""
    raw = bytes(text) if isinstance(text, memoryview) else text
    brackets = raw.count("[") + raw.count("{") if isinstance(raw, str) else raw.count(b"[") + raw.count(b"{")
    if brackets <= DEPTH_MAX:
        return False
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [
            inner
            for each in _containers(level)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return bool(_containers(level))


def _containers(values: list[Any]) -> list[Any]:
    return [each for each in values if isinstance(each, dict | list)]


_TOO_DEEP = f"nested too deeply: over {DEPTH_MAX} levels of objects and lists"


def _constant(name: str) -> NoReturn:
    raise NotJson(f"{name} is not a JSON value")


def _float(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise NotJson(f"{text[:40]} is too large for a number")
    return number
