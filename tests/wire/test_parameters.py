"""Defaults and bounds of every documented parameter, and values just outside."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stoker_wire.endpoint import EndpointConfig, EndpointPatch, EndpointState
from stoker_wire.errors.problem import describe
from stoker_wire.workergroup import Workergroup

DEFAULTS = {
    "max_workers": 16,
    "min_workers": 5,
    "min_load": 1,
    "target_util": 0.9,
    "cold_mult": 3,
    "min_cold_load": 0,
    "inactivity_timeout": None,
    "max_queue_time": 30,
    "target_queue_time": 10,
    "endpoint_state": "active",
}

# what is in bounds, at the edge                      and one step beyond
ROWS = [
    ("max_workers", [0, 1, 10_000], [-1, 10_001, 1.5, "many"]),
    ("min_workers", [0, 5, 10_000], [-1, 10_001, 0.5, "x"]),
    ("cold_workers", [0, 5, 10_000], [-1, 10_001, 0.5]),
    ("min_load", [0, 0.001, 1e9], [-0.001, float("nan"), float("inf"), "x"]),
    ("target_util", [1e-9, 0.9, 1], [0, -0.1, 1.0001, float("nan")]),
    ("cold_mult", [1, 2.5, 1000], [0.999, 0, -1, float("inf")]),
    ("min_cold_load", [0, 300], [-1, float("nan")]),
    ("inactivity_timeout", [-1, 0, 600.5], [float("nan"), float("inf"), "never"]),
    ("max_queue_time", [0.001, 30], [0, -1, float("inf")]),
    ("target_queue_time", [0.001, 10], [0, -1, float("nan")]),
    ("error_budget", [0.0001, 0.01, 1], [0, -1, 1.1, float("nan")]),
    ("endpoint_state", ["active", "suspended", "stopped"], ["", "Active", "paused", 1]),
    ("dollars_per_hour_max", [0.01, 100], [0, -1, float("inf")]),
    ("drain_seconds_max", [0, 600], [-1, float("nan")]),
    ("silence_seconds_max", [0.1, 86400], [0, -1, float("inf")]),
    (
        "allowed_origins",
        [(), ("*",), ("https://chat.example.com", "http://localhost:3000")],
        [("chat.example.com",), ("https://a/b",), ("https://a, https://b",), ("https://*.a",)],
    ),
    ("affinity_prefix_bytes", [0, 2048, 1_000_000], [-1, 1_000_001, 0.5, "x"]),
]


def test_the_defaults_are_those_of_the_documentation():
    config = EndpointConfig().model_dump()
    assert {name: config[name] for name in DEFAULTS} == DEFAULTS


def test_additional_parameters_are_off_or_generous_by_default():
    config = EndpointConfig().model_dump()
    assert {name: config[name] for name in config.keys() - DEFAULTS.keys()} == {
        "dollars_per_hour_max": None,
        "error_budget": 0.01,
        "drain_seconds_max": 600,
        "silence_seconds_max": 3600,
        "allowed_origins": (),
        "affinity_prefix_bytes": 0,
    }


@pytest.mark.parametrize("model", [EndpointConfig, EndpointPatch])
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, good, _ in ROWS for value in good])
def test_a_value_in_bounds_is_taken(model, name, value):
    read = model.model_validate({name: value})
    assert getattr(read, "min_workers" if name == "cold_workers" else name) == value


@pytest.mark.parametrize("model", [EndpointConfig, EndpointPatch])
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, _, bad in ROWS for value in bad])
def test_a_value_out_of_bounds_is_refused_by_name(model, name, value):
    with pytest.raises(ValidationError) as caught:
        model.model_validate({name: value})
    assert name in describe(caught.value)


@pytest.mark.parametrize("model", [EndpointConfig, EndpointPatch])
def test_min_workers_wins_over_its_other_name(model):
    assert model.model_validate({"cold_workers": 2}).min_workers == 2
    assert model.model_validate({"cold_workers": 2, "min_workers": 3}).min_workers == 3
    assert model.model_validate({"min_workers": 3, "cold_workers": 2}).min_workers == 3
    assert model.model_validate({"cold_workers": 2, "min_workers": None}).min_workers == 2


@pytest.mark.parametrize("model", [EndpointConfig, EndpointPatch])
def test_a_misspelt_parameter_is_refused(model):
    with pytest.raises(ValidationError) as caught:
        model.model_validate({"max_worker": 3})
    assert "max_worker" in describe(caught.value)


def test_a_patch_changes_only_its_fields():
    config = EndpointConfig(max_workers=4, min_load=7)
    patch = EndpointPatch.model_validate({"max_workers": 9, "min_load": None, "endpoint_state": "stopped"})
    changed = config.patched(patch)
    assert (changed.max_workers, changed.min_load, changed.endpoint_state) == (9, 7, EndpointState.STOPPED)
    assert changed.model_dump(exclude={"max_workers", "endpoint_state"}) == config.model_dump(
        exclude={"max_workers", "endpoint_state"}
    )


def test_a_patch_can_set_a_timeout_of_zero_and_a_negative_one():
    config = EndpointConfig(inactivity_timeout=60)
    assert config.patched(EndpointPatch(inactivity_timeout=0)).inactivity_timeout == 0
    assert config.patched(EndpointPatch(inactivity_timeout=-1)).inactivity_timeout == -1


@given(
    st.builds(
        EndpointPatch,
        max_workers=st.none() | st.integers(0, 10_000),
        min_workers=st.none() | st.integers(0, 10_000),
        min_load=st.none() | st.floats(0, 1e9),
        target_util=st.none() | st.floats(0.01, 1),
        inactivity_timeout=st.none() | st.floats(-1, 1e6),
        endpoint_state=st.none() | st.sampled_from(EndpointState),
    )
)
def test_patching_twice_changes_nothing_more(patch):
    once = EndpointConfig().patched(patch)
    assert once.patched(patch) == once


def test_a_config_survives_json():
    config = EndpointConfig(max_workers=3, inactivity_timeout=-1, dollars_per_hour_max=2.5)
    assert EndpointConfig.model_validate_json(config.model_dump_json()) == config


def test_a_workergroup_has_the_documented_defaults():
    group = Workergroup(id=1, template_hash="abc")
    assert (group.gpu_ram, group.test_workers, group.search_params, group.launch_args) == (24, 3, "", "")
    bounds = ("cold_workers", "max_workers", "min_load", "target_util", "cold_mult", "min_cold_load")
    assert [getattr(group, name) for name in bounds] == [None] * len(bounds)


def test_a_workergroup_names_a_template():
    with pytest.raises(ValidationError, match="template_hash or template_id"):
        Workergroup(id=1)
    assert Workergroup(id=1, template_id=5).template_id == 5


@pytest.mark.parametrize(
    "search", ["gpu_name=RTX_4090 num_gpus=1", {"verified": {"eq": True}}, [{"verified": {"eq": True}}], ""]
)
def test_search_params_come_in_three_shapes(search):
    assert Workergroup(id=1, template_id=5, search_params=search).search_params == search


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", 0),
        ("template_id", 0),
        ("template_hash", ""),
        ("template_hash", "x" * 256),
        ("search_params", 5),
        ("launch_args", "x" * 16_385),
        ("gpu_ram", -1),
        ("cold_workers", -1),
        ("max_workers", 10_001),
        ("min_load", -1),
        ("target_util", 0),
        ("target_util", 1.1),
        ("cold_mult", 0.9),
        ("min_cold_load", -1),
        ("test_workers", 101),
        ("revision", 0),
        ("gpu_name", "RTX_4090"),
    ],
)
def test_a_workergroup_out_of_bounds_is_refused_by_name(name, value):
    with pytest.raises(ValidationError) as caught:
        Workergroup.model_validate({"id": 1, "template_hash": "abc", name: value})
    assert name in describe(caught.value)
