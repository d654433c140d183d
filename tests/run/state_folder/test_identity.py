"""The identity of a deployment: its source, and which copy is used."""

import asyncio
import json
import shutil
from dataclasses import asdict, replace

import pytest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.testing import WorkflowEnvironment

from market.copy_detection import FolderLocation, locate_folder
from run.errors import CommandError
from run.processes.temporal_server import temporal_binary
from run.state_folder.identity import (
    DATA_KEY,
    StoredIdentity,
    ensure_identity,
    identity_of,
    new_identity,
    read_identity,
    require_original,
    store_identity,
    temporal_name,
)


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
    found = await asyncio.gather(*(ensure_identity(client, folder) for folder in folders))
    assert len(set(found)) == 1
    assert await held(client) == found[0] == await identity_of(client)
    assert {read_identity(folder) for folder in folders} == {StoredIdentity(found[0], temporal_name(client))}


async def test_the_folder_decides_for_its_own_server_and_the_namespace_for_others(client, tmp_path):
    own, other = tmp_path / "own", tmp_path / "other"
    store_identity(own, StoredIdentity("feedfeedfeed", ""))
    assert await ensure_identity(client, own, own_server=True) == "feedfeedfeed"
    assert await ensure_identity(client, other) == "feedfeedfeed"
    store_identity(other, StoredIdentity("deadbeef0000", temporal_name(client)))
    assert await ensure_identity(client, other) == "feedfeedfeed"
    assert read_identity(other) == StoredIdentity("feedfeedfeed", temporal_name(client))


async def test_a_folder_of_another_temporal_keeps_its_identity(client, tmp_path):
    theirs = StoredIdentity("deadbeef0000", "other.example:7233/stoker")
    store_identity(tmp_path, theirs)
    assert await ensure_identity(client, tmp_path) == await identity_of(client) != "deadbeef0000"
    assert read_identity(tmp_path) == theirs


@pytest.mark.parametrize(
    "text", ["", "[]", "no JSON", '{"deployment": 7}', '{"deployment": "SHOUTED00000"}', "{}"]
)
def test_a_damaged_file_is_a_fault_with_a_remedy(tmp_path, text):
    (tmp_path / "deployment.json").write_text(text)
    with pytest.raises(CommandError, match="correct it, or remove"):
        read_identity(tmp_path)


def test_a_folder_without_the_file_has_no_identity(tmp_path):
    assert read_identity(tmp_path) is None
    assert read_identity(tmp_path / "missing") is None


def copied(folder, place, **changes):
    shutil.copytree(folder, place)
    path = place / "deployment.json"
    said = json.loads(path.read_text())
    said["location"] |= changes
    path.write_text(json.dumps(said))
    return place


@pytest.fixture
def folder(tmp_path):
    store_identity(tmp_path / "original", StoredIdentity("feedfeedfeed", ""))
    return tmp_path / "original"


def test_a_folder_that_was_renamed_is_the_original(folder, tmp_path):
    require_original(folder)
    folder.rename(tmp_path / "elsewhere")
    require_original(tmp_path / "elsewhere")


def test_a_copy_is_refused_with_the_commands_that_decide(folder, tmp_path):
    copy = copied(folder, tmp_path / "copy")
    with pytest.raises(
        CommandError, match=r"is a copy: .*in another folder.* --new.* --set feedfeedfeed"
    ) as told:
        require_original(copy)
    assert told.value.exit_code == 3
    require_original(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"machine": "another"}, "on another machine"),
        ({"cards": ("another",)}, "of which this is a clone"),
    ],
)
def test_a_folder_on_another_machine_is_a_copy_even_where_all_else_is_the_same(
    folder, monkeypatch, changes, said
):
    here = FolderLocation("machine", locate_folder(folder).inode, ("card", "second card"))
    monkeypatch.setattr("run.state_folder.identity.locate_folder", lambda _: replace(here, **changes))
    path = folder / "deployment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"location": asdict(here)}))
    with pytest.raises(CommandError, match=said):
        require_original(folder)


def test_an_added_card_or_an_unreadable_id_does_not_make_a_copy():
    kept = FolderLocation("machine", 7, ("card",))
    assert not kept.differs_from(FolderLocation("machine", 7, ("card", "new card")))
    assert not kept.differs_from(FolderLocation("machine", 7, ()))
    assert not kept.differs_from(FolderLocation("", 7, ("card",)))
    assert kept.differs_from(FolderLocation("machine", 8, ("card",)))


async def test_a_database_that_was_copied_without_the_identity_is_refused_too(client, folder, tmp_path):
    assert await ensure_identity(client, folder, own_server=True) == "feedfeedfeed"
    with pytest.raises(CommandError, match="is a copy.*--set feedfeedfeed"):
        await ensure_identity(client, tmp_path / "fresh", own_server=True)
    store_identity(tmp_path / "fresh", StoredIdentity(new_identity(), ""))
    found = await ensure_identity(client, tmp_path / "fresh", own_server=True)
    assert found == await identity_of(client) != "feedfeedfeed"


async def test_what_the_person_decided_lasts(client, folder, tmp_path):
    await ensure_identity(client, folder, own_server=True)
    copy = copied(folder, tmp_path / "copy")
    store_identity(copy, StoredIdentity("deadbeef0000", ""))
    require_original(copy)
    assert await ensure_identity(client, copy, own_server=True) == "deadbeef0000"
    require_original(copy)
