"""Parsing of numbers in text."""

import math
from types import NoneType
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from stoker_wire.endpoint import EndpointConfig, EndpointPatch
from stoker_wire.market import Offer
from stoker_wire.parsing.numbers import finite, read_number, read_whole
from stoker_wire.route import RouteRequest
from stoker_wire.workergroup import Workergroup

PYTHONS_OWN = [
    "1_0", "1__0", "_1", " 10", "10 ", "\t1", "1\n", "+1", "inf", "-inf", "Infinity", "nan", "NaN", "٣", "²",
    "0x10", "1e", "e1", ".", "", "-", "1,5", "1.", ".5", "1e999", "1e9999", "9" * 70, "1e1_0", "\x001",
]  # fmt: skip


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_decimal_number_is_read(number: float) -> None:
    assert read_number(repr(number)) == finite(number) == finite(repr(number)) == number


@pytest.mark.parametrize("text", PYTHONS_OWN)
def test_python_only_number_syntax_is_none(text: str) -> None:
    assert read_number(text) is read_whole(text) is finite(text) is None


@pytest.mark.parametrize("value", [None, True, [], {}, math.nan, math.inf, 10**400])
def test_a_json_value_that_is_not_a_finite_number_is_none(value: object) -> None:
    assert finite(value) is None


def test_a_whole_number_has_digits_only() -> None:
    assert (read_whole("017"), read_whole("-1"), read_whole("1.0"), read_whole("1e3")) == (
        17,
        None,
        None,
        None,
    )


@pytest.mark.parametrize("text", ["1_0", " 1", "+1", "inf", "nan", "٣"])
@pytest.mark.parametrize(
    ("model", "given"),
    [
        (RouteRequest, {"endpoint": "x", "cost": "?"}),
        (RouteRequest, {"endpoint": "x", "request_idx": "?"}),
        (EndpointConfig, {"max_workers": "?"}),
        (EndpointConfig, {"cold_workers": "?"}),
        (EndpointConfig, {"target_queue_time": "?"}),
        (EndpointConfig, {"inactivity_timeout": "?"}),
        (Offer, {"id": 1, "gpu_ram": "?"}),
    ],
)
def test_a_number_in_a_body_that_comes_as_text_is_decimal(model: type, given: dict, text: str) -> None:
    with pytest.raises(ValidationError, match="number|integer"):
        model.model_validate({name: text if value == "?" else value for name, value in given.items()})
    model.model_validate({name: "1" if value == "?" else value for name, value in given.items()})


def test_a_text_stays_a_text() -> None:
    assert RouteRequest.model_validate({"endpoint": "1_0", "failed_url": "+1"}).endpoint == "1_0"


@pytest.mark.parametrize("model", [EndpointConfig, EndpointPatch, Workergroup])
def test_every_number_of_a_config_has_bounds_and_is_no_boolean(model: type[BaseModel]) -> None:
    fixed = {"id": 1, "template_hash": "t"} if model is Workergroup else {}
    for name, field in model.model_fields.items():
        kinds = set(get_args(field.annotation)) or {field.annotation}
        if not kinds <= {int, float, NoneType}:
            continue
        for odd in (True, 1e300, -1e300):
            with pytest.raises(ValidationError):
                pytest.fail(f"{name} took {odd}: {model.model_validate(fixed | {name: odd})!r}")
