"""Workload rules: the same number in the engine and in the worker, from any payload."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_wire.route import COST_MAX
from stoker_wire.worker_status import WorkerStatus
from stoker_wire.workload import (
    AudioWorkload,
    ConstantWorkload,
    FieldWorkload,
    PixelWorkload,
    ServedRoute,
    TokenWorkload,
)

RULES = [
    ConstantWorkload(load=7),
    FieldWorkload(fields=("max_completion_tokens", "max_tokens"), default=64, factor=2),
    TokenWorkload(),
    PixelWorkload(),
    AudioWorkload(),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["max_tokens", "messages", "prompt", "size", "width", "height", "steps", "n"])


@pytest.mark.parametrize(
    ("rule", "payload", "load"),
    [
        (RULES[0], {"max_tokens": 900}, 7),
        (RULES[1], {"max_tokens": 300}, 600),
        (RULES[1], {"max_completion_tokens": 10, "max_tokens": 300}, 20),
        (RULES[1], {"max_tokens": None}, 64),
        (RULES[1], {"max_tokens": "300"}, 64),
        (RULES[1], {"max_tokens": True}, 64),
        (RULES[1], {"max_tokens": -1}, 64),
        (FieldWorkload(fields=("parameters.max_new_tokens",)), {"parameters": {"max_new_tokens": 5}}, 5),
        # 400 characters / 4 * 0.1 + 50 tokens * 2 answers
        (RULES[2], {"messages": [{"content": "x" * 400}], "max_tokens": 50, "n": 2}, 110),
        (RULES[2], {"prompt": "x" * 40}, 257),
        # No model generates a billion tokens: what a client declares is limited by the model's context.
        (RULES[2], {"max_tokens": 1e9}, 131_072),
        (TokenWorkload(output_max=4096), {"max_tokens": 1e9, "n": 1e9}, 4096 * 128),
        (FieldWorkload(fields=("max_tokens",), maximum=50, factor=2), {"max_tokens": 1e9}, 100),
        (RULES[3], {"width": 1e9, "height": 1e9}, 100_000),
        (RULES[3], {}, 1024 * 1024 / 1e6 * 30),
        (RULES[3], {"size": "512x512", "n": 2, "steps": 10}, 512 * 512 / 1e6 * 20),
        (RULES[3], {"width": 100, "height": 100, "num_inference_steps": 4}, 0.04),
    ],
)
def test_a_rule_computes_the_workload_of_a_payload(rule, payload, load):
    assert rule(payload) == pytest.approx(load)


def test_audio_is_estimated_from_the_size_of_the_body():
    assert AudioWorkload().workload(None, 160_000) == 10


@given(st.sampled_from(RULES), st.dictionaries(NAMES, JSON, max_size=4))
def test_every_payload_has_a_workload(rule, payload):
    load = rule.workload(payload, 1000)
    assert 0 <= load <= COST_MAX
    assert math.isfinite(load)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_a_rule_comes_through_a_report_unchanged(rule):
    route = ServedRoute(path="/v1/completions", rule=rule, calculated=False)
    status = WorkerStatus.model_validate({"id": 1, "routes": [route.model_dump(mode="json")]})
    assert status.routes == (route,)


def test_a_rule_of_an_unknown_kind_does_not_spoil_the_report():
    status = WorkerStatus.model_validate({"id": 1, "routes": [{"path": "/x", "rule": {"kind": "phases"}}]})
    assert status.routes == (ServedRoute(path="/x", rule=None, calculated=True),)
