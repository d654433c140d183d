"""An endpoint whose workflow makes no progress: lists mark it as broken, and deletes report what they did."""

import asyncio
import uuid
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus

from activities.progress import progress_of
from controller.state import EndpointStateBook
from engine.settings import Timing
from engine.temporal.endpoint_watcher import read_valid_parts
from stoker_wire.control import workflow_id
from tests.engine.fake_endpoint_workflow import until
from tests.engine.test_console import Console, alice, real_stage, real_temporal

__all__ = ["alice", "real_stage", "real_temporal"]  # fixtures

GROUP = {"template_hash": "tmpl", "search_params": "gpu_name=RTX_4090"}


async def two_endpoints(
    alice: Console, monkeypatch: pytest.MonkeyPatch, **config: Any
) -> tuple[tuple[str, int], tuple[str, int]]:
    """A working endpoint and a broken one, each with a workergroup: name and id."""
    made = []
    for kind in ("whole", "broken"):
        name = f"{kind}-{uuid.uuid4().hex[:8]}"
        body = {"endpoint_name": name, "min_load": 0, "cold_workers": 0, "max_workers": 2} | config
        endpoint_id = (await alice.good("POST", "/api/v0/endptjobs/", body))["result"]
        await alice.good("POST", "/api/v0/workergroups/", {"endpoint_id": endpoint_id, **GROUP})
        made.append((name, endpoint_id))
    return made[0], made[1]


async def broken(alice: Console, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    sound = EndpointStateBook.observation

    def mistake(self: EndpointStateBook, *args: Any, **more: Any) -> Any:
        if self.name == name:
            raise RuntimeError("a mistake of this build")
        return sound(self, *args, **more)

    monkeypatch.setattr(EndpointStateBook, "observation", mistake)
    client = alice.stage.env.client
    await client.get_workflow_handle(workflow_id(name)).signal("update_config", {"max_workers": 3})

    async def fails() -> bool:
        return bool((await progress_of(client, workflow_id(name))).fault)

    await until(fails, "its workflow task fails", seconds=60)


async def test_one_broken_endpoint_does_not_hide_the_others_workergroups(
    alice: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, sick = await two_endpoints(alice, monkeypatch)
    await broken(alice, monkeypatch, sick[0])
    for path in ("/api/v0/workergroups/", "/api/v0/autojobs/"):
        status, answered = await alice("GET", path)
        assert status == 200, answered
        rows = {row["endpoint_name"]: row for row in answered["results"]}
        assert rows[whole[0]]["template_hash"] == "tmpl"
        assert not rows[whole[0]].get("broken")
        assert rows[sick[0]]["endpoint_id"] == sick[1]
        assert "its workflow task fails: a mistake of this build" in rows[sick[0]]["broken"]
    await alice.good("DELETE", f"/api/v0/endptjobs/{whole[1]}/?force=true")
    status, answered = await alice("GET", "/api/v0/workergroups/")
    assert status == 200, "a single broken endpoint is listed too"
    assert [row["endpoint_name"] for row in answered["results"] if row["broken"]] == [sick[0]]
    status, answered = await alice("GET", f"/api/v0/endptjobs/{sick[1]}/costs/")
    assert status >= 500, "a query of only this endpoint fails"
    await alice("DELETE", f"/api/v0/endptjobs/{sick[1]}/?force=true")


async def test_a_delete_without_progress_says_so_and_a_forced_delete_succeeds(
    alice: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, sick = await two_endpoints(alice, monkeypatch, min_load=1, cold_workers=1)
    client = alice.stage.env.client

    async def rented() -> bool:
        rows = (await alice("POST", "/get_endpoint_workers/", {"id": sick[1]}))[1]
        return bool(rows) and all(row["id"] for row in rows)

    await until(rented, "it has a machine", seconds=60)
    await broken(alice, monkeypatch, sick[0])
    path = f"/api/v0/endptjobs/{sick[1]}/"
    status, answered = await alice("DELETE", path)
    assert status == 202, answered
    assert (answered["success"], answered["begun"], answered["deleted_workers"]) == (True, False, 0)
    assert "nothing was destroyed yet: its workflow task fails: a mistake of this build" in answered["msg"]
    assert answered["failed_workers"] >= 1
    status, answered = await alice("DELETE", path, {"force": "perhaps"})
    assert (status, answered["error"]) == (400, "invalid_args")
    status, answered = await alice("DELETE", path, {"force": True})
    assert status == 200, answered
    assert answered["destroyed_instances"]
    assert answered["left_instances"] == []
    assert (answered["deleted_workers"], answered["failed_workers"]) == (
        len(answered["destroyed_instances"]),
        0,
    )
    described = await client.get_workflow_handle(workflow_id(sick[0])).describe()
    assert described.status is WorkflowExecutionStatus.TERMINATED
    names = [row["endpoint_name"] for row in (await alice.good("GET", "/api/v0/endptjobs/"))["results"]]
    assert sick[0] not in names
    assert whole[0] in names
    await alice.good("DELETE", f"/api/v0/endptjobs/{whole[1]}/")


async def test_the_list_of_endpoints_marks_the_one_without_progress(
    alice: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, sick = await two_endpoints(alice, monkeypatch)
    await broken(alice, monkeypatch, sick[0])
    server = await alice.stage.start_engine(timing=Timing(watch_seconds=0.2, watch_full_seconds=1.0))

    async def shown() -> dict[str, Any] | None:
        status, answered = await alice.stage.call("GET", "/api/v0/endptjobs/", key=alice.key, server=server)
        assert status == 200
        rows = {row["endpoint_name"]: row for row in answered["results"]}
        assert rows[whole[0]]["broken"] == ""
        return rows if rows[sick[0]]["broken"] else None

    rows = await until(shown, "the broken one is shown as such", seconds=90)
    assert "makes no progress" in rows[sick[0]]["broken"]
    for each in (whole, sick):
        await alice("DELETE", f"/api/v0/endptjobs/{each[1]}/?force=true")
    await asyncio.sleep(0)


def test_a_memo_is_read_without_its_unreadable_parts() -> None:
    good = {"l": "a", "i": 1, "g": 1, "s": "idle"}
    memo, omitted = read_valid_parts(
        {"id": 1, "name": "llm", "members": [good, {"l": "b"}, good | {"s": "new"}], "wait_until": "soon"}
    )
    assert [member.l for member in memo.members] == ["a"]
    assert omitted == ("members.1", "members.2", "wait_until")
    with pytest.raises(ValueError, match="owner"):
        read_valid_parts({"id": 1, "name": "llm", "owner": 7})
