"""Reports reach the engine once and soon, and none is lost while the engine is down."""

import asyncio
import socket

import msgspec
import pytest
from structlog.testing import capture_logs

from stoker_pyworker.model.gpu import GpuReading
from stoker_pyworker.reporting import reports, request_counts
from stoker_pyworker.reporting.reports import Report
from stoker_pyworker.reporting.request_counts import Finished, Outcome, RequestCounts, Work
from stoker_wire.worker_status import FinishedRequest, GpuStatus, WorkerStatus
from tests.pyworker.harness import TOKEN, Engine, handlers, until


@pytest.mark.parametrize(
    ("ours", "wire"), [(Report, WorkerStatus), (Finished, FinishedRequest), (GpuReading, GpuStatus)]
)
def test_messages_have_the_fields_of_the_wire_types(ours, wire):
    assert set(ours.__struct_fields__) == set(wire.model_fields)


async def test_reports_change_from_loading_to_ready(worker, engine):
    await until(lambda: engine.statuses and engine.statuses[-1]["loadtime"] > 0)
    status = WorkerStatus.model_validate(engine.statuses[-1])
    assert status.ready
    assert status.id == 17
    assert status.mtoken == TOKEN
    assert status.url == f"http://127.0.0.1:{worker.runtime.port}"
    assert status.max_perf > 0
    assert status.disk_usage > 0


async def test_a_finished_request_is_reported_with_its_times(worker, engine):
    await worker.post("/echo", cost=25)
    await until(lambda: engine.finished)
    item = FinishedRequest.model_validate(engine.finished[0])
    assert (item.request_idx, item.success, item.status) == (1, True, "Success")
    assert item.work_first_byte_at
    assert item.entered_queue_at <= item.work_started_at <= item.work_first_byte_at <= item.work_completed_at
    # The request may end after the report was built; then its load is in the next report.
    await until(lambda: engine.total("cur_perf") == 25)
    assert engine.total("new_load") == 25
    assert engine.statuses[-1]["num_requests_recieved"] == 1


async def test_running_requests_are_reported(worker, model, engine):
    held = asyncio.create_task(worker.post("/held", cost=40))
    await until(lambda: engine.statuses and engine.statuses[-1]["working_request_idxs"] == [1])
    assert engine.statuses[-1]["cur_load"] == 40
    assert engine.statuses[-1]["num_requests_working"] == 1
    model.go.set()
    await held
    await until(lambda: engine.statuses[-1]["cur_load"] == 0)
    assert engine.statuses[-1]["working_request_idxs"] == []


@pytest.mark.parametrize("failing", ["status", "moved", "cut", "finished"])
async def test_a_failing_engine_loses_no_report_and_blocks_no_request(worker, engine, failing):
    await until(lambda: engine.statuses)
    before = engine.total("new_load")
    engine.failing = failing
    for _ in range(20):
        assert (await worker.post("/echo", cost=3)).status_code == 200
    attempts = engine.attempts
    await until(lambda: engine.attempts > attempts + 1)
    assert engine.finished == []
    engine.failing = ""
    await until(lambda: len(engine.finished) == 20)
    await until(lambda: engine.total("cur_perf") == 60)
    assert engine.total("new_load") - before == 60
    assert sorted(item["request_idx"] for item in engine.finished) == list(range(1, 21))


async def finish_unreported(worker, engine, count):
    """Let `count` requests end before the engine accepts a list of ended requests."""
    status_for, engine.status_for = engine.status_for, lambda _: 500
    for _ in range(count):
        assert (await worker.post("/echo", cost=3)).status_code == 200
    engine.status_for = status_for


@pytest.mark.parametrize("status", [400, 422])
async def test_a_refused_finished_request_does_not_block_the_others(worker, engine, status):
    engine.status_for = lambda items: status if {3, 4} & {item["request_idx"] for item in items} else 200
    with capture_logs() as logs:
        await finish_unreported(worker, engine, 9)
        await until(lambda: worker.runtime.counts.unreported == 0)
    assert [item["request_idx"] for item in engine.finished] == [1, 2, 5, 6, 7, 8, 9]
    assert worker.runtime.status()["requests_dropped"] == 2
    dropped = [line for line in logs if line["event"] == "finished_request_refused"]
    assert [line["request_idx"] for line in dropped] == [3, 4]
    assert f"status {status}" in dropped[0]["error"]
    reports = len(engine.statuses)
    await worker.post("/echo")
    await until(lambda: len(engine.finished) == 8)
    assert len(engine.statuses) > reports


async def test_an_engine_that_refuses_every_finished_request_is_not_flooded(worker, engine):
    engine.status_for = lambda _: 400
    await finish_unreported(worker, engine, 30)
    reports, attempts = len(engine.statuses), engine.attempts
    await until(lambda: worker.runtime.counts.unreported == 0)
    assert len(engine.statuses) >= reports + 2
    assert engine.attempts - attempts < 100
    assert worker.runtime.counts.dropped == 30


def test_finished_requests_over_the_memory_limit_are_counted_as_dropped(monkeypatch):
    monkeypatch.setattr(request_counts, "_FINISHED_MAX", 3)
    counts = RequestCounts()
    for number in range(5):
        work = Work(number, 1.0)
        counts.accept(work)
        counts.finish(work, Outcome.SUCCESS)
    mark, items = counts.next_finished(10)
    assert [item.request_idx for item in items] == [2, 3, 4]
    assert (mark, counts.dropped) == (5, 2)
    counts.acknowledge(mark)
    assert (counts.unreported, counts.dropped) == (0, 2)


async def test_finished_requests_are_split_when_the_engine_answers_413(worker, engine):
    engine.status_for = lambda items: 413 if len(items) > 3 else 200
    await finish_unreported(worker, engine, 10)
    await until(lambda: worker.runtime.counts.unreported == 0)
    assert [item["request_idx"] for item in engine.finished] == list(range(1, 11))
    assert worker.runtime.status()["requests_dropped"] == 0


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 503])
async def test_finished_requests_are_reported_again_after_a_temporary_error(worker, engine, status):
    engine.status_for = lambda _: status
    for _ in range(3):
        await worker.post("/echo")
    attempts = engine.attempts
    await until(lambda: engine.attempts > attempts + 1)
    engine.status_for = lambda _: 200
    await until(lambda: len(engine.finished) == 3)
    assert worker.runtime.status()["requests_dropped"] == 0


async def test_a_restarted_engine_receives_everything_from_its_downtime(worker, engine):
    await until(lambda: engine.statuses)
    port = engine.port
    await engine.stop()
    for _ in range(5):
        await worker.post("/echo", cost=2)
    back = await Engine(port=port).start()
    try:
        await until(lambda: len(back.finished) == 5)
        await until(lambda: back.total("cur_perf") == 10)
        assert back.total("new_load") == 10
    finally:
        await back.stop()


async def test_the_next_address_is_used_when_the_first_does_not_answer(make_worker, engine):
    with socket.socket() as unused:  # bound, but not listening
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        worker = await make_worker(settings={"report_addresses": (address, engine.url + "/w/17")})
        await worker.post("/echo")
        await until(lambda: engine.finished)
        await until(lambda: engine.total("cur_perf") == 100)


async def test_the_launchs_own_path_is_not_logged(make_worker, engine):
    engine.failing = "status"
    with capture_logs() as logs:
        await make_worker(settings={"report_addresses": (engine.url + "/w/17/sealed-key",)})
        await until(lambda: [line for line in logs if line["event"] == "report_failed"])
    assert "sealed-key" not in repr(logs)
    assert {line["path"] for line in logs if line["event"] == "report_failed"} == {"/worker_status/"}


async def test_reports_keep_their_connection(worker, engine):
    for number in range(3):
        await worker.post("/echo")
        await until(lambda number=number: len(engine.finished) == number + 1)
    assert engine.connections == 1


async def test_reported_load_that_is_cancelled_reduces_the_next_total():
    counts = RequestCounts()
    left, stayed = Work(1, 50.0), Work(2, 80.0)
    counts.accept(left)
    reported = counts.totals()
    counts.finish(left, Outcome.CANCELLED)
    counts.accept(stayed)
    assert counts.totals().new - reported.new == 30.0


async def test_reported_load_that_is_cancelled_is_counted_once(worker, engine):
    # 40 are reported, then cancelled: the total falls to 0, and the next 30 are part of the reported 40.
    _, writer = await worker.connect()
    writer.write(worker.raw_request("/held", cost=40))
    await until(lambda: engine.total("new_load") == 40)
    writer.close()
    await until(lambda: engine.statuses[-1]["cur_load"] == 0)
    reports = len(engine.statuses)
    await worker.post("/echo", cost=30)
    await until(lambda: engine.total("cur_perf") == 30 and len(engine.statuses) > reports)
    assert engine.total("new_load") == 40
    await worker.post("/echo", cost=25)
    await until(lambda: engine.total("cur_perf") == 55)
    assert engine.total("new_load") == 55


async def test_every_report_names_the_incarnation_of_the_process(worker, engine, make_worker):
    await worker.post("/echo")
    await until(lambda: engine.finished)
    names = {status["incarnation"] for status in engine.statuses} | set(engine.ends_of)
    (name,) = names
    assert name == worker.runtime.health.incarnation
    ages = [status["uptime_seconds"] for status in engine.statuses]
    assert ages == sorted(ages)
    assert ages[0] > 0
    other = await make_worker()
    assert other.runtime.health.incarnation != name


def test_requests_that_end_during_a_report_stay_unreported():
    counts = RequestCounts()
    for number in range(3):
        work = Work(number, 1.0)
        counts.accept(work)
        counts.finish(work, Outcome.SUCCESS)
    mark, items = counts.next_finished(2)
    late = Work(0, 1.0)
    counts.accept(late)
    counts.finish(late, Outcome.ERROR)
    counts.acknowledge(mark)
    assert [item.request_idx for item in items] == [0, 1]
    assert [item.request_idx for item in counts.next_finished(10)[1]] == [2, 0]


async def test_the_status_needs_the_workers_token_and_does_not_show_it(worker):
    assert (await worker.client.get("/pyworker/status")).status_code == 401
    answer = await worker.client.get("/pyworker/status", headers={"authorization": f"Bearer {TOKEN}"})
    status = answer.json()
    assert status["ready"] is True
    assert status["requests_held"] == 0
    assert TOKEN not in answer.text
    assert TOKEN not in repr(worker.runtime.settings)
    assert msgspec.json.encode(status)


async def test_a_serial_worker_reports_its_running_request(make_worker, model, engine):
    worker = await make_worker(handlers=handlers(allow_parallel_requests=False))
    await until(lambda: engine.statuses and engine.statuses[-1]["loadtime"] > 0)
    assert engine.statuses[-1]["end_report_seconds"] > 0
    assert engine.statuses[-1]["running_load"] == 0
    first = asyncio.create_task(worker.post("/held", cost=40))
    await until(lambda: model.answering == 1)
    second = asyncio.create_task(worker.post("/held", cost=7))
    await until(lambda: engine.statuses[-1]["cur_load"] == 47)
    assert engine.statuses[-1]["running_load"] == 40
    model.go.set()
    await asyncio.gather(first, second)
    await until(lambda: engine.statuses[-1]["cur_load"] == 0)
    assert engine.statuses[-1]["running_load"] == engine.statuses[-1]["running_seconds"] == 0


async def test_the_start_of_the_next_queued_request_is_reported_at_once(
    make_worker, model, engine, monkeypatch
):
    monkeypatch.setattr(reports, "_BUSY_SECONDS", 60.0)  # only the end of a request triggers a report
    monkeypatch.setattr(reports, "_CALM_SECONDS", 60.0)
    worker = await make_worker(handlers=handlers(allow_parallel_requests=False))
    await until(lambda: engine.statuses and engine.statuses[-1]["loadtime"] > 0)
    first = asyncio.create_task(worker.post("/echo", cost=5))
    second = asyncio.create_task(worker.post("/held", cost=40))
    await first
    await until(lambda: engine.statuses[-1]["running_load"] == 40)
    await until(lambda: engine.finished)  # sent right after the report
    assert [item["request_idx"] for item in engine.finished] == [1]
    model.go.set()
    await second


async def test_a_parallel_worker_reports_no_running_request(worker, model, engine):
    held = asyncio.create_task(worker.post("/held", cost=40))
    await until(lambda: engine.statuses and engine.statuses[-1]["cur_load"] == 40)
    assert engine.statuses[-1]["end_report_seconds"] == engine.statuses[-1]["running_load"] == 0
    model.go.set()
    await held
