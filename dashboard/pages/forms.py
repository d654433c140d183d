"""Reading of forms, and the config form: which parameters it shows, and how its text becomes values. Pure."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from stoker import Invalid
from stoker_wire.endpoint import EndpointConfig, EndpointPatch
from stoker_wire.errors.problem import Problem
from stoker_wire.parsing.numbers import read_number

FORM_TYPE = "application/x-www-form-urlencoded"
_FORM_FIELDS_MAX = 100

_SHOWN = (
    *(
        "min_load",
        "target_util",
        "target_queue_time",
        "error_budget",
        "max_queue_time",
        "min_workers",
        "max_workers",
    ),
    *("cold_mult", "min_cold_load", "inactivity_timeout", "dollars_per_hour_max", "drain_seconds_max"),
    "silence_seconds_max",
)


def _about(name: str) -> str:
    paragraph = (EndpointConfig.model_fields[name].description or "").partition("\n\n")[0]
    return " ".join(paragraph.replace("`", "").split())


FIELDS: dict[str, str] = {name: _about(name) for name in _SHOWN if name in EndpointPatch.model_fields}
"""The parameters on the form, with what each means."""

ADVISABLE = frozenset(EndpointPatch.model_fields) - {"endpoint_state"}
"""The parameters that a what-if analysis can vary."""


def read_form(content_type: str, body: bytes) -> dict[str, str]:
    """The fields of a submitted form; of a repeated field the first value.

    Raises:
        Problem: 415, another content type than that of the dashboard's forms; 400, not the text of a form.
    """
    if not body:
        return {}
    if content_type != FORM_TYPE:
        message = f"this path takes forms only: send {FORM_TYPE} (got {content_type[:80]!r})"
        raise Problem(415, "not_a_form", message)
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_FORM_FIELDS_MAX)
    except ValueError:  # also of bytes that are not ASCII
        message = f"the body should be a form of at most {_FORM_FIELDS_MAX} percent-encoded fields"
        raise Problem(400, "not_a_form", message) from None
    return dict(reversed(pairs))


def read_fields(given: Mapping[str, str], present: Mapping[str, Any]) -> dict[str, Any]:
    """The values that differ from the present ones. An empty field stays as it is.

    Raises:
        Invalid: a field is not a number; the message names it.
    """
    changes: dict[str, Any] = {}
    for name, text in given.items():
        if not text.strip():
            continue
        value = read_number(text.strip())
        if value is None:
            raise Invalid(f"{name}: should be a number, got {text[:40]!r}")
        known = present.get(name)
        if known is None or float(known) != value:
            changes[name] = int(value) if value == int(value) and abs(value) < 2**53 else value
    return changes
