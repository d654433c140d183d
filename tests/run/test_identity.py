"""The identity of a deployment: where it comes from, and which copy decides."""

import asyncio

import pytest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.testing import WorkflowEnvironment

from run.faults import Fault
from run.identity import (
    DATA_KEY,
    Kept,
    identity_of,
    keep_identity,
    read_identity,
    settle_identity,
    temporal_name,
)
from run.temporal_server import temporal_binary


@pytest.fixture
async def client():
    async with await WorkflowEnvironment.start_local(
        namespace="identity", dev_server_existing_path=str(temporal_binary())
    ) as env:
        yield env.client


async def held(client):
    asked = DescribeNamespaceRequest(namespace=client.namespace)
    return (await client.workflow_service.describe_namespace(asked)).namespace_info.data.get(DATA_KEY)


async def test_workers_that_start_at_once_find_one_identity_and_keep_it(client, tmp_path):
    folders = [tmp_path / str(number) for number in range(4)]
    found = await asyncio.gather(*(settle_identity(client, folder) for folder in folders))
    assert len(set(found)) == 1
    assert await held(client) == found[0] == await identity_of(client)
    assert {read_identity(folder) for folder in folders} == {Kept(found[0], temporal_name(client))}


async def test_the_folder_decides_for_its_own_server_and_the_namespace_for_others(client, tmp_path):
    own, other = tmp_path / "own", tmp_path / "other"
    keep_identity(own, Kept("feedfeedfeed", ""))
    assert await settle_identity(client, own, own_server=True) == "feedfeedfeed"
    assert await settle_identity(client, other) == "feedfeedfeed"
    keep_identity(other, Kept("deadbeef0000", temporal_name(client)))
    assert await settle_identity(client, other) == "feedfeedfeed"
    assert read_identity(other) == Kept("feedfeedfeed", temporal_name(client))


async def test_a_folder_of_another_temporal_keeps_its_identity(client, tmp_path):
    theirs = Kept("deadbeef0000", "other.example:7233/stoker")
    keep_identity(tmp_path, theirs)
    assert await settle_identity(client, tmp_path) == await identity_of(client) != "deadbeef0000"
    assert read_identity(tmp_path) == theirs


@pytest.mark.parametrize(
    "text", ["", "[]", "no JSON", '{"deployment": 7}', '{"deployment": "SHOUTED00000"}', "{}"]
)
def test_a_damaged_file_is_a_fault_with_a_remedy(tmp_path, text):
    (tmp_path / "deployment.json").write_text(text)
    with pytest.raises(Fault, match="mend it, or remove"):
        read_identity(tmp_path)


def test_a_folder_without_the_file_has_no_identity(tmp_path):
    assert read_identity(tmp_path) is None
    assert read_identity(tmp_path / "missing") is None
