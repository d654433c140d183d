"""A workflow's state, query results and inputs stay within Temporal's 2 MiB at the maximum number of workers."""

import dataclasses
from typing import Any

import pytest

from controller.effects import ListedInstances
from controller.state import EndpointStateBook, EngineRecord
from controller.whatif.advice import begin
from policy.capacity.limits import WORKERS_MAX
from policy.state.incarnation import Process
from policy.state.worker import Drain, Goal, Worker
from stoker_wire.control import EndpointSpec, WorkerAction
from stoker_wire.endpoint import EndpointConfig, EndpointPatch
from stoker_wire.market import Charge, Instance
from stoker_wire.messages import WorkerMetrics
from stoker_wire.states import WorkerState
from stoker_wire.workergroup import Workergroup
from workflows.publish import memo_of
from workflows.temporal_worker.converter import data_converter

BLOB_BYTES_MAX = 2 * 1024 * 1024
NOW = 1_795_000_000.123456
ENGINES = 4
ADDRESS = "123.123.123.123:40000,40001,40002"
PROCESS = Process(
    id="e" * 16, started_at=NOW, ended=tuple(f"{number:016x}" for number in range(4)), ended_at=NOW
)

BOOT = (("model_loading", round(NOW, 1)),) * 10


def payload_bytes(value: Any) -> int:
    """Size of the value in a history."""
    (payload,) = data_converter.payload_converter.to_payloads([value])
    return len(payload.data)


def worker(number: int, state: WorkerState, **more: Any) -> Worker:
    """With every figure that a worker has in service."""
    return Worker(
        launch_id=f"{number:012x}", workergroup_id=1, revision=3, kind="2x RTX PRO 6000 Blackwell", state=state,
        since=NOW, launched_at=NOW, offer_id=12_345_678, machine_id=54_321, instance_id=23_456_789 + number,
        dollars_per_hour=0.823456789, storage_dollars_per_hour=0.0123456789, perf=1234.56789, perf_estimate=1234.56789,
        offered_dollars_per_hour=0.823456789,
        load=1234.56789, in_flight=12, waiting=12, tickets_open=12, url="https://123.123.123.123:40000", address=ADDRESS,
        reported_at=NOW, loaded_once=True, market_status="running", process=PROCESS, boot=BOOT, **more,
    )  # fmt: skip


def full(state: WorkerState, **more: Any) -> EndpointStateBook:
    """An endpoint with all the workers that it can have, all alike, several engines that give them out, and advice."""
    group = Workergroup(id=1, template_hash="x" * 32)
    config = EndpointConfig(max_workers=10_000)
    book = EndpointStateBook(
        EndpointSpec(endpoint_name="llm", endpoint_id=1, config=config, workergroups=(group,))
    )
    workers = [worker(number, state, **more) for number in range(WORKERS_MAX)]
    record = book.record
    record.workers = {each.launch_id: each for each in workers}
    for number in range(ENGINES):
        name = f"engine-{number:012x}"
        record.engines[name] = EngineRecord(
            engine_id=name, sequence=10_000, heard_at=NOW, tickets=dict.fromkeys(record.workers, 12)
        )
    book.count_dollars(NOW)
    book.count_dollars(NOW + 3600)
    seen = book.observation(NOW + 3600)
    record.advice = begin(seen, EndpointPatch(target_util=0.5), dollars=0.0)
    record.memo = memo_of(book)
    return book


BROKEN = {
    "error": "e" * 300,
    "error_everywhere": True,
    "asked": WorkerAction.DESTROY,
    "drain": Drain(since=NOW, deadline=NOW, goal=Goal.UPDATE, reason="r" * 80, seen_at=NOW),
    "operation": "reboot",
    "retry_at": NOW,
    "stop_accepted_at": NOW,
    "failures": 3,
    "still_reporting": True,
    "provisional": True,
}


@pytest.mark.parametrize(
    "how", [(WorkerState.READY, {}), (WorkerState.ERROR, BROKEN)], ids=["ready", "all broken"]
)
def test_a_state_of_as_many_workers_as_there_can_be_is_handed_on(
    how: tuple[WorkerState, dict[str, Any]],
) -> None:
    state, more = how
    book = full(state, **more)
    assert payload_bytes(book.spec()) < BLOB_BYTES_MAX, "continue-as-new"
    assert payload_bytes(book.observation(NOW)) < BLOB_BYTES_MAX, "what the planner is given"
    assert payload_bytes(list(book.record.workers.values())) < BLOB_BYTES_MAX, "the workers query"
    assert payload_bytes(book.record.memo) < BLOB_BYTES_MAX


def test_a_listing_of_as_many_and_their_bills_comes_through() -> None:
    instance = Instance(
        id=23_456_789, actual_status="running", intended_status="running", cur_state="running", next_state="running",
        status_msg="s" * 200, label="stoker:llm:0123456789ab", machine_id=54_321, host_id=54_321, num_gpus=2,
        gpu_name="RTX PRO 6000 Blackwell", dph_total=0.823456789, dph_base=0.823456789, start_date=NOW,
        storage_total_cost=0.0123456789, address=ADDRESS,
    )  # fmt: skip
    bill = Charge(
        instance_id=23_456_789, label="stoker:llm:0123456789ab", dollars=12.3456789, since=NOW, until=NOW
    )
    listed = ListedInstances(instances=(instance,) * WORKERS_MAX, charges=(bill,) * WORKERS_MAX)
    assert payload_bytes(listed) < BLOB_BYTES_MAX


def test_a_batch_that_speaks_of_as_many_comes_through() -> None:
    spoken = WorkerMetrics(
        launch_id="0123456789ab", instance_id=23_456_789, condition="ready", perf=1234.5678, load=1234.5678, in_flight=12,
        tickets_open=12, reported_at=NOW, url="https://123.123.123.123:40000", error="e" * 300,
    )  # fmt: skip
    assert payload_bytes([spoken] * WORKERS_MAX) < BLOB_BYTES_MAX


def test_the_worker_of_these_tests_leaves_nothing_out_that_takes_room() -> None:
    made = worker(1, WorkerState.ERROR, **BROKEN)
    left = {each.name for each in dataclasses.fields(Worker) if getattr(made, each.name) == each.default}
    assert left <= {"suspect_since", "starts_given_up", "reboots", "ran_at_release", "official", "relabelled"}
