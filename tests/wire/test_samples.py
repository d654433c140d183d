"""Committed samples of messages: every message of an earlier version must remain readable.

A sample is never edited. A changed type gets a new sample and a line in HISTORY.md.
"""

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

import stoker_wire
from stoker_wire.control import EndpointSpec
from stoker_wire.endpoint import EndpointConfig, EndpointPatch
from stoker_wire.market import Instance, Offer, Template
from stoker_wire.route import Route, RouteRequest, Waiting
from stoker_wire.worker_status import FinishedRequests, WorkerStatus
from stoker_wire.workergroup import Workergroup

SAMPLES = Path(__file__).parent / "samples"
MODELS: dict[str, type[BaseModel]] = {
    "endpoint_config": EndpointConfig,
    "endpoint_patch": EndpointPatch,
    "endpoint_spec": EndpointSpec,
    "finished_requests": FinishedRequests,
    "instance": Instance,
    "offer": Offer,
    "route": Route,
    "route_request": RouteRequest,
    "template": Template,
    "waiting": Waiting,
    "worker_status": WorkerStatus,
    "workergroup": Workergroup,
}


def samples() -> list[Path]:
    return sorted(SAMPLES.glob("*.json"))


def kept(sample: object, read: object) -> bool:
    """Whether the parsed value contains everything in the sample, at every depth; it may have more."""
    if isinstance(sample, dict):
        return isinstance(read, dict) and all(
            name in read and kept(value, read[name]) for name, value in sample.items()
        )
    if isinstance(sample, list):
        return isinstance(read, list) and len(sample) == len(read) and all(map(kept, sample, read))
    return sample == read


def test_every_type_has_a_sample():
    assert {path.stem.partition(".")[0] for path in samples()} == MODELS.keys()


@pytest.mark.parametrize("path", samples(), ids=lambda path: path.stem)
def test_every_field_of_a_sample_is_read(path):
    model = MODELS[path.stem.partition(".")[0]]
    sample = json.loads(path.read_text())
    read = model.model_validate(sample).model_dump(mode="json")
    assert kept(sample, read)


@pytest.mark.parametrize("path", samples(), ids=lambda path: path.stem)
def test_a_parsed_sample_can_be_serialised_again(path):
    model = MODELS[path.stem.partition(".")[0]]
    first = model.model_validate_json(path.read_text())
    assert model.model_validate_json(first.model_dump_json()) == first


def test_the_history_lists_every_field():
    history = (Path(stoker_wire.__file__).parent / "HISTORY.md").read_text()
    named = set(re.findall(r"`([a-z_]+)`", history))
    for model in MODELS.values():
        missing = {name for name in model.model_fields if name not in named}
        assert not missing, f"HISTORY.md does not say since when {model.__name__} has {sorted(missing)}"


def test_the_dates_of_the_history_run_backwards():
    history = (Path(stoker_wire.__file__).parent / "HISTORY.md").read_text()
    dates = re.findall(r"^## .* (\d{4}-\d{2}-\d{2})$", history, re.MULTILINE)
    assert dates
    assert dates == sorted(dates, reverse=True)
