"""Payloads are read by readers that the whole process shares, and are the bytes that they always were."""

from typing import Annotated

import pytest
from temporalio.contrib.pydantic import pydantic_data_converter

from controller.effects import ListedInstances
from stoker_wire.market import Instance
from workflows.temporal_worker import converter

LISTED = ListedInstances(instances=(Instance(id=1, label="stoker:a:1"),))


def test_a_type_is_prepared_once_for_all_workflows():
    payloads = converter.data_converter.payload_converter.to_payloads([LISTED])
    converter.SharedReaders().from_payloads(payloads, [ListedInstances])
    made_before = converter._reader.cache_info().misses
    for _ in range(3):  # every workflow has a converter of its own
        assert converter.SharedReaders().from_payloads(payloads, [ListedInstances]) == [LISTED]
    assert converter._reader.cache_info().misses == made_before


def test_payloads_are_the_same_as_those_of_temporals_own_converter():
    ours, theirs = (each.payload_converter for each in (converter.data_converter, pydantic_data_converter))
    values = [LISTED, None, b"raw", {"a": [1, "x"]}, "text"]
    assert ours.to_payloads(values) == theirs.to_payloads(values)
    assert ours.from_payloads(theirs.to_payloads(values)) == theirs.from_payloads(ours.to_payloads(values))


def test_a_hint_without_a_hash_is_read_all_the_same():
    (payload,) = converter.data_converter.payload_converter.to_payloads([7])
    hint = Annotated[int, ["a list has none"]]
    with pytest.raises(TypeError):
        hash(hint)
    assert converter._Json().from_payload(payload, hint) == 7
