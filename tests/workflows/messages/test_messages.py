"""What people and engines send: signals that can be used are used, others leave a line; updates answer."""

from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from stoker_wire.endpoint import EndpointConfig
from stoker_wire.states import WorkerState as S
from tests.workflows.world import group

CALM = EndpointConfig(min_load=0, min_workers=0, max_workers=2)


async def refusal(handle: Any, name: str, *args: Any) -> ApplicationError:
    with pytest.raises(WorkflowUpdateFailedError) as failed:
        await handle.execute_update(name, *args)
    cause = failed.value.cause
    assert isinstance(cause, ApplicationError)
    return cause


@pytest.mark.parametrize(
    ("signal", "sent", "says"),
    [
        ("update_config", {"max_workers": -1}, "max_workers"),
        ("update_config", {"maxworkers": 3}, "maxworkers"),
        ("update_config", "fast, please", "valid"),
        ("set_workergroup", {"id": 2}, "template"),
        ("set_workergroup", {"id": 2, "template_hash": "t", "search_params": "gpu_name"}, "search_params"),
        ("set_workergroup", {"id": 2, "template_hash": "t", "launch_args": "--nonsense 1"}, "launch_args"),
        ("remove_workergroup", "one", "workergroup id"),
        ("update_workers", None, "workergroup id"),
        ("report_metrics", {"engine_id": "e"}, "sequence"),
        (
            "report_metrics",
            {"engine_id": "e", "sequence": 1, "sent_at": 1, "arrived_load": "NaN"},
            "arrived_load",
        ),
        (
            "report_metrics",
            {"engine_id": "e", "sequence": 1, "sent_at": 1, "queued_load": 1e308},
            "queued_load",
        ),
        ("report_metrics", {"engine_id": "e", "sequence": 1, "sent_at": 1, "window_s": 1e300}, "window_s"),
    ],
)
async def test_a_signal_that_cannot_be_used_leaves_a_line_and_changes_nothing(
    a_world: Any, signal: str, sent: Any, says: str
) -> None:
    async with a_world() as world:
        await world.start(CALM, [group()])
        before = await world.handle.query("status")
        await world.handle.signal(signal, sent)
        lines = await world.handle.query("decisions")
        refused = [line for line in lines if line["reason"].startswith("refused")]
        assert [line["subject"] for line in refused] == [signal]
        assert says in refused[0]["reason"]
        assert (await world.handle.query("status"))["config"] == before["config"]
        await world.handle.signal("update_config", {"max_workers": 5})
        assert (await world.handle.query("status"))["config"]["max_workers"] == 5, "and it lives on"


async def test_an_update_answers_the_whole_config(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(CALM)
        config = await world.handle.execute_update("update_config", {"cold_workers": 1, "max_workers": None})
        assert config["min_workers"] == 1
        assert config["max_workers"] == 2, "null leaves it as it is"


@pytest.mark.parametrize(
    ("update", "sent", "code", "says"),
    [
        ("update_config", {"target_util": 2}, "invalid_config", "target_util"),
        ("update_config", {"speed": 2}, "invalid_config", "speed"),
        ("set_workergroup", {"id": 1}, "invalid_workergroup", "template"),
        (
            "set_workergroup",
            {"id": 1, "template_id": 3, "search_params": "a b"},
            "invalid_workergroup",
            "search_params",
        ),
        ("remove_workergroup", 9, "no_such_workergroup", "9"),
        ("remove_workergroup", "x", "invalid_workergroup", "workergroup id"),
        ("update_workers", 9, "no_such_workergroup", "9"),
        ("cancel_update", 9, "no_such_workergroup", "9"),
        ("cancel_update", "x", "invalid_workergroup", "workergroup id"),
    ],
)
async def test_a_refused_update_says_why_and_leaves_no_trace(
    a_world: Any, update: str, sent: Any, code: str, says: str
) -> None:
    async with a_world() as world:
        await world.start(CALM)
        before = await world.handle.query("decisions")
        fault = await refusal(world.handle, update, sent)
        assert fault.type == code
        assert says in fault.message
        assert await world.handle.query("decisions") == before


async def test_a_workergroup_comes_changes_and_goes(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(CALM)
        stored = await world.handle.execute_update("set_workergroup", group().model_dump(mode="json"))
        assert stored["revision"] == 1
        changed = group(template_hash="other").model_dump(mode="json")
        assert (await world.handle.execute_update("set_workergroup", changed))["revision"] == 2
        same = await world.handle.execute_update("set_workergroup", group(template_hash="other", revision=2))
        assert same["revision"] == 2, "the same again is no new revision"
        bound = group(template_hash="other", max_workers=1).model_dump(mode="json")
        assert (await world.handle.execute_update("set_workergroup", bound))["revision"] == 2, (
            "nor is a bound"
        )
        assert (await world.memo()).groups == (1,)
        await world.handle.execute_update("remove_workergroup", 1)
        assert await world.handle.query("workergroups") == []


async def test_a_rotated_key_is_in_the_memo(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(CALM)
        assert await world.handle.execute_update("rotate_key") == 2
        await world.live(5)
        assert (await world.memo()).key_version == 2


async def test_an_endpoint_that_is_being_deleted_takes_no_changes(a_world: Any) -> None:
    async with a_world() as world:
        world.failing_machines = {500 + n for n in range(30)}
        await world.start(CALM.model_copy(update={"min_workers": 1}), [group()])
        assert await world.live(60, until=lambda memo: len(memo.members) == 1)
        await world.handle.signal("delete")
        fault = await refusal(world.handle, "update_config", {"max_workers": 3})
        assert fault.type == "deleting"
        await world.handle.result()


async def test_a_doubled_batch_counts_once(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(CALM)
        batch = {
            "engine_id": "e",
            "sequence": 4,
            "sent_at": world.now,
            "window_s": 5,
            "arrived_load": 50,
            "last_request_at": world.now,
        }
        await world.handle.signal("report_metrics", batch)
        once = (await world.handle.query("status"))["load_per_second"]
        assert once > 0
        for sequence in (4, 3):
            await world.handle.signal("report_metrics", batch | {"sequence": sequence})
        assert (await world.handle.query("status"))["load_per_second"] == once
        await world.handle.signal("report_metrics", batch | {"sequence": 5})
        assert (await world.handle.query("status"))["load_per_second"] == pytest.approx(2 * once)


async def test_metrics_of_a_worker_that_nobody_knows_change_nothing(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(CALM)
        stranger = {
            "launch_id": "ffffffffffff",
            "instance_id": 7,
            "condition": "ready",
            "perf": 1e9,
            "reported_at": world.now,
        }
        await world.handle.signal(
            "report_metrics", {"engine_id": "e", "sequence": 1, "sent_at": world.now, "workers": [stranger]}
        )
        assert await world.handle.query("workers") == []


async def test_a_worker_is_identified_by_its_instance_too(a_world: Any) -> None:
    async with a_world() as world:
        await world.start(CALM.model_copy(update={"min_workers": 1}), [group()])
        assert await world.live(300, until=lambda memo: any(member.s is S.READY for member in memo.members))
        memo = await world.memo()
        member = memo.members[0]
        wrong = {
            "launch_id": member.l,
            "instance_id": member.i + 1,
            "condition": "error",
            "error": "no",
            "reported_at": world.now + 1,
        }
        await world.handle.signal(
            "report_metrics", {"engine_id": "e9", "sequence": 1, "sent_at": world.now, "workers": [wrong]}
        )
        assert (await world.handle.query("workers"))[0]["error"] == ""
