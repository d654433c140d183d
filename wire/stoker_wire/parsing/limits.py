"""Size limits of values in an endpoint's workflow: its state, history and memo.

Temporal refuses payloads over 2 MiB, so a workflow with a larger state cannot make progress. Limits are checked where a
value arrives (console API, SDK, CLI) and again by the workflow. `docs/reference/limits.md` lists them.
"""

from typing import Any

import pydantic_core

KIB = 1024

SEARCH_PARAMS_BYTES_MAX = 16 * KIB
"""`search_params` of one workergroup, as JSON."""
LAUNCH_ARGS_BYTES_MAX = 16 * KIB
"""`launch_args` of one workergroup, as UTF-8."""
NESTING_MAX = 16
"""Nesting levels of lists and objects in user input."""
WORKERGROUPS_MAX = 64
"""Workergroups of one endpoint."""
WORKERGROUPS_BYTES_MAX = 256 * KIB
"""All workergroups of one endpoint together, as JSON."""
KEYS_MAX = 100
"""Named keys of one endpoint."""
KEY_NAME_CHARS_MAX = 64
"""Name of a named key."""
MESSAGE_BYTES_MAX = 64 * KIB
"""A user's signal or update to a workflow, as JSON."""
SPEC_BYTES_MAX = 320 * KIB
"""The input of a new endpoint's workflow, as JSON."""
METRICS_BYTES_MAX = 1024 * KIB
"""One batch of metrics that an engine sends to a workflow, as JSON."""
METRICS_WORKERS_MAX = 2000
"""Workers in one batch of metrics: twice the maximum of an endpoint."""
ENGINE_ID_BYTES_MAX = 128
LAUNCH_ID_BYTES_MAX = 64
WORKER_URL_BYTES_MAX = 160
ERROR_BYTES_MAX = 500
"""An error reported by a worker; longer ones are shortened."""
MARKET_TEXT_BYTES_MAX = 64
"""Name, location or status of a machine from the marketplace; longer ones are shortened."""
DECISION_SUBJECT_BYTES_MAX = 120
DECISION_REASON_BYTES_MAX = 400
"""The reason in a line of the decision log; longer ones are shortened."""
STATE_BYTES_MAX = 1792 * KIB
"""An endpoint's state for continue-as-new. If it is larger, the workflow drops learned statistics."""


class TooLarge(ValueError):
    """A value exceeds its limit. The message names the limit, the size and the field."""


def json_bytes(value: Any) -> int:
    """The size of a value as JSON, in bytes.

    Raises:
        TooLarge: the value is nested too deeply to be serialised.
    """
    try:
        return len(pydantic_core.to_json(value))
    except ValueError as fault:
        raise TooLarge(f"cannot be written as JSON: {str(fault)[:100]}") from None


def check_size(value: Any, bytes_max: int) -> None:
    """Raise TooLarge if the value as JSON is larger than `bytes_max` or nested deeper than `NESTING_MAX`."""
    if _is_nested(value, NESTING_MAX):
        raise TooLarge(f"at most {NESTING_MAX} nested levels are accepted, got more")
    size = json_bytes(value)
    if size > bytes_max:
        raise TooLarge(f"at most {bytes_max} bytes are accepted, got {size}")


def _is_nested(value: Any, levels_left: int) -> bool:
    """Whether the value has more than `levels_left` levels. Deeper levels are not visited."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else None
    if inner is None:
        return False
    return levels_left == 0 or any(_is_nested(each, levels_left - 1) for each in inner)


def shortened(text: str, bytes_max: int) -> str:
    """The text on one line, cut to `bytes_max` bytes of UTF-8, with control characters replaced by blanks.

    A control character would take six bytes in JSON, and a terminal would interpret it.
    """
    if not text.isprintable():
        text = "".join(each if each.isprintable() else " " for each in text[: bytes_max + 1])
    if len(text) * 4 <= bytes_max:
        return text
    encoded = text[: bytes_max + 1].encode(errors="replace")
    return text if len(encoded) <= bytes_max else encoded[:bytes_max].decode(errors="ignore")


_CUT = "…"
_WORDS_SHARE_MIN = 0.8
"""Share of the allowed text that has to be left by a cut between two words; else the cut is within a word."""


def excerpt(text: str, bytes_max: int) -> str:
    """A text for people, shortened: one that is cut ends after a word, with `…`."""
    whole = shortened(text, len(text) * 4)
    if shortened(whole, bytes_max) == whole:
        return whole
    cut = shortened(whole, bytes_max - len(_CUT.encode()))
    words = cut.rpartition(" ")[0]
    return (words if len(words) > len(cut) * _WORDS_SHARE_MIN else cut).rstrip(" ,.;:") + _CUT


LOAD_MAX = 10**12
"""Largest load or load/s in a config. Sums and products of such values stay exact enough to be compared."""
DURATION_SECONDS_MAX = 10**9
"""Longest duration in a config: thirty years, so that timers can express it."""
PRICE_MAX = 10**6
"""Largest budget, $/h."""
FACTOR_MAX = 10**6
"""Largest factor in a config."""
