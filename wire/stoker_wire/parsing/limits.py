"""How large anything may be that enters an endpoint's workflow: its state, its history, its memo.

Temporal refuses a payload over 2 MiB, and a workflow whose state is larger makes no progress any more. Every limit is
checked where the value arrives (console API, SDK, CLI) and again by the workflow. `docs/reference/limits.md` lists them.
"""

from typing import Any

import pydantic_core

KIB = 1024

SEARCH_PARAMS_BYTES_MAX = 16 * KIB
"""`search_params` of one workergroup, as JSON."""
LAUNCH_ARGS_BYTES_MAX = 16 * KIB
"""`launch_args` of one workergroup, as UTF-8."""
NESTING_MAX = 16
"""Levels of lists and objects in a value that a person sends."""
WORKERGROUPS_MAX = 64
"""Workergroups of one endpoint."""
WORKERGROUPS_BYTES_MAX = 256 * KIB
"""All workergroups of one endpoint together, as JSON."""
MESSAGE_BYTES_MAX = 64 * KIB
"""A signal or update of a person to a workflow, as JSON."""
SPEC_BYTES_MAX = 320 * KIB
"""The input of a new endpoint's workflow, as JSON."""
METRICS_BYTES_MAX = 1024 * KIB
"""One batch of metrics that an engine sends to a workflow, as JSON."""
METRICS_WORKERS_MAX = 2000
"""Workers in one batch of metrics: twice as many as an endpoint can have."""
ENGINE_ID_BYTES_MAX = 128
LAUNCH_ID_BYTES_MAX = 64
WORKER_URL_BYTES_MAX = 256
ERROR_BYTES_MAX = 500
"""An error that a worker reports; longer ones are cut."""
MARKET_TEXT_BYTES_MAX = 64
"""A machine's name, place or status as the marketplace says it; longer ones are cut."""
DECISION_SUBJECT_BYTES_MAX = 120
DECISION_REASON_BYTES_MAX = 400
"""A line of the decision log; longer texts are cut."""
STATE_BYTES_MAX = 1792 * KIB
"""The whole state of an endpoint, as continue-as-new hands it on. Beyond it the workflow leaves out what it can learn again."""


class TooLarge(ValueError):
    """A value over its limit; the text names the limit, what came, and the field."""


def json_bytes(value: Any) -> int:
    """The size of a value as JSON, in bytes.

    Raises:
        TooLarge: it is nested too deeply to be written.
    """
    try:
        return len(pydantic_core.to_json(value))
    except ValueError as fault:
        raise TooLarge(f"cannot be written as JSON: {str(fault)[:100]}") from None


def check_size(value: Any, bytes_max: int, what: str = "") -> None:
    """Raises TooLarge when the value as JSON is larger than `bytes_max` or nested deeper than `NESTING_MAX`."""
    where = f"{what}: " if what else ""
    if _is_nested(value, NESTING_MAX):
        raise TooLarge(f"{where}at most {NESTING_MAX} nested levels are taken; more came")
    size = json_bytes(value)
    if size > bytes_max:
        raise TooLarge(f"{where}at most {bytes_max} bytes are taken; {size} came")


def _is_nested(value: Any, levels_left: int) -> bool:
    """Whether it has more levels than that. Looks no deeper than one level beyond."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else None
    if inner is None:
        return False
    return levels_left == 0 or any(_is_nested(each, levels_left - 1) for each in inner)


def shortened(text: str, bytes_max: int) -> str:
    """The text on one line and within so many bytes of UTF-8; control characters become blanks.

    A control character would take six bytes in JSON, and a terminal would obey it.
    """
    if not text.isprintable():
        text = "".join(each if each.isprintable() else " " for each in text[: bytes_max + 1])
    if len(text) * 4 <= bytes_max:
        return text
    encoded = text[: bytes_max + 1].encode(errors="replace")
    return text if len(encoded) <= bytes_max else encoded[:bytes_max].decode(errors="ignore")
