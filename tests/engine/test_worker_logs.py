"""`/get_worker_logs/`: whose log is shown, and which worker an id names."""

import json
from pathlib import Path
from typing import Any

from tests.engine.conftest import ALICE, BOB, EndpointDouble, Stage


def save_log(folder: Path, endpoint: EndpointDouble, *, instance_id: int, at: float) -> None:
    saved = {"label": f"stoker:{endpoint.name}:aaaaaaaaaaaa", "at": at, "text": "one\ntwo"}
    (folder / f"{instance_id}.json").write_text(json.dumps(saved))


async def log_of(stage: Stage, endpoint: EndpointDouble, worker: object, key: str = ALICE) -> tuple[int, Any]:
    return await stage.post("/get_worker_logs/", {"endpoint": endpoint.name, "worker": worker}, key=key)


async def test_a_saved_log_is_shown_to_the_endpoint_that_it_is_of(bare_stage: Stage, tmp_path: Path) -> None:
    stage = bare_stage
    server = await stage.start_engine(saved_logs_dir=tmp_path)
    endpoint, other = await stage.endpoint(), await stage.endpoint(owner="bob")
    created_at = server.engine.directory.named(endpoint.name).memo.created_at
    save_log(tmp_path, endpoint, instance_id=7, at=created_at + 5)
    status, answer = await log_of(stage, endpoint, 7)
    assert (status, answer["log"], answer["live"]) == (200, "one\ntwo", False)
    assert (await log_of(stage, endpoint, "7"))[0] == 200
    assert (await log_of(stage, endpoint, "aaaaaaaaaaaa"))[0] == 200, (
        "by the launch id of a worker that is gone"
    )
    assert (await log_of(stage, endpoint, "bbbbbbbbbbbb"))[1]["error"] == "no_such_log"
    assert (await log_of(stage, other, "aaaaaaaaaaaa", BOB))[1]["error"] == "no_such_log"
    assert (await log_of(stage, other, 7, BOB))[1]["error"] == "no_such_log"
    assert (await log_of(stage, endpoint, 7, BOB))[1]["error"] == "no_such_endpoint"


async def test_a_saved_log_of_a_deleted_endpoint_is_not_shown_to_the_next_one_of_its_name(
    bare_stage: Stage, tmp_path: Path
) -> None:
    stage = bare_stage
    server = await stage.start_engine(saved_logs_dir=tmp_path)
    endpoint = await stage.endpoint(owner="bob")
    created_at = server.engine.directory.named(endpoint.name).memo.created_at
    save_log(tmp_path, endpoint, instance_id=7, at=created_at - 1)
    status, problem = await log_of(stage, endpoint, 7, BOB)
    assert (status, problem["error"]) == (404, "no_such_log")


async def test_an_id_names_one_worker_or_none(bare_stage: Stage, tmp_path: Path) -> None:
    stage = bare_stage
    await stage.start_engine(saved_logs_dir=tmp_path)
    endpoint = await stage.endpoint()
    workers = [
        endpoint.worker(launch_id=launch, instance_id=number)
        for launch, number in (("102aaaaaaaaa", 101), ("10aaaaaaaaaa", 102))
    ]
    await endpoint.script(members=[worker.member() for worker in workers])
    for named, number in ((102, 102), ("102", 102), ("102a", 101), ("10aaaaaaaaaa", 102)):
        message = (await log_of(stage, endpoint, named))[1]["msg"]
        assert message.startswith(f"there is no log of instance {number};"), named
    for named in ("10", "1", "", "x", 0, -1, True, 1.5, [1], 2**63, 10**4000, "9" * 5000):
        status, problem = await log_of(stage, endpoint, named)
        assert (status, problem["error"]) == (400, "invalid_args"), named
        assert len(problem["msg"]) < 200
