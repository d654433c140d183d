"""Calls of workers: authenticated, bound to their launch, implausible values refused."""

import asyncio
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from engine.api.worker_api import checked_url
from stoker_pyworker.ticket_clock import TicketClock
from stoker_wire.errors.problem import Problem
from stoker_wire.security.token import mint_worker_token
from stoker_wire.states import WorkerState
from tests.engine.conftest import SECRET, Stage
from tests.engine.fake_endpoint_workflow import until


async def test_a_report_without_a_token_of_this_deployment_is_refused(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.script(groups=[1], members=[worker.member()])
    forged = mint_worker_token(b"another secret, also 32 bytes !!", endpoint.id, worker.launch_id)
    other = mint_worker_token(SECRET, endpoint.id, "bbbbbbbbbbbb").rpartition(".")[2]
    swapped = f"{endpoint.id}.{worker.launch_id}.{other}"
    for token in ("", "x", "1.2.3", forged, swapped, f"99999.{worker.launch_id}.x", "9" * 300):
        for path, body in (
            ("/worker_status/", worker.status(mtoken=token)),
            ("/delete_requests/", {"worker_id": worker.instance_id, "mtoken": token, "requests": []}),
        ):
            status, problem = await stage.post(path, body)
            assert (status, problem["error"]) == (401, "bad_worker_token"), token
            assert token == "" or len(token) < 9 or token not in problem["msg"]


async def test_a_report_is_answered_with_the_date_that_corrects_the_workers_clock(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.script(groups=[1], members=[worker.member()])
    async with stage.http.post(f"{stage.server.url}/worker_status/", json=worker.status()) as answered:
        date = parsedate_to_datetime(answered.headers["Date"])
    clock = TicketClock()
    for _ in range(2):
        clock.observe_date(
            answered.headers["Date"].encode(),
            engine="e",
            sent_at=date.timestamp() + 90.0,
            received_at=date.timestamp() + 90.5,
        )
    assert clock.ahead_seconds == pytest.approx(90, abs=1)


async def test_a_token_is_valid_for_its_own_instance_only(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.script(groups=[1], members=[worker.member()])
    status, problem = await stage.post("/worker_status/", worker.status(id=999))
    assert (status, problem["error"]) == (403, "wrong_instance")
    assert stage.server.engine.directory.named(endpoint.name).candidates == []


async def test_a_worker_of_a_deleted_endpoint_gets_a_404(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    worker.token = mint_worker_token(SECRET, 999_999, worker.launch_id)
    status, problem = await stage.post("/worker_status/", worker.status())
    assert (status, problem["error"]) == (404, "no_such_endpoint")


async def test_reports_of_an_unlisted_worker_count_once_the_memo_lists_it(
    stage: Stage,
) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await worker.report()
    call = endpoint.begin()
    await endpoint.lined_up(1)
    await endpoint.script(groups=[1], members=[worker.member()])
    assert (await call)["url"] == worker.url


@pytest.mark.parametrize(
    "changes",
    [
        {"cur_load": -1},
        {"max_perf": -0.1},
        {"max_perf": 1e13},
        {"cur_load": 1e300},
        {"loadtime": 1e12},
        {"id": -1},
        {"id": 2**70},
        {"id": "x"},
        {"num_requests_working": -1},
        {"working_request_idxs": "x"},
        {"url": "ftp://1.2.3.4:1"},
        {"url": "http://user:pass@1.2.3.4:1"},
        {"url": "http://1.2.3.4:1/path"},
        {"url": "http://1.2.3.4:1?x=1"},
        {"url": "http://1.2.3.4:99999"},
        {"url": "http://1.2.3.4:1\r\nX: y"},
        {"url": "http://"},
        {"url": "javascript:alert(1)"},
    ],
)
async def test_an_implausible_report_is_refused_and_changes_nothing(
    stage: Stage, changes: dict[str, Any]
) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.script(groups=[1], members=[worker.member(i=0)])
    status, problem = await stage.post("/worker_status/", worker.status(**changes))
    assert status == 400, problem
    known = stage.server.engine.directory.named(endpoint.name).workers[worker.launch_id]
    assert known.report.reported_at == 0


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999"])
async def test_nan_and_infinity_are_refused(stage: Stage, number: bytes) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.script(groups=[1], members=[worker.member()])
    body = b'{"id": 101, "mtoken": "%s", "max_perf": %s}' % (worker.token.encode(), number)
    assert (await stage.post("/worker_status/", body))[0] == 400


def test_an_address_is_scheme_host_and_port_without_trailing_slash() -> None:
    assert checked_url("http://1.2.3.4:3000/") == "http://1.2.3.4:3000"
    assert checked_url("https://[2001:db8::1]:443") == "https://[2001:db8::1]:443"
    assert checked_url("http://2001:db8::1:3000") == "http://[2001:db8::1]:3000", "as official workers say it"
    assert checked_url("http://::1:3000") == "http://[::1]:3000"
    assert checked_url("") == ""
    for bad in (
        "http://[::::]:80",
        "http://2001:db8::1",
        "http://[1.2.3.4]:80",
        "http://::1%lo:80",
        "http://1.2.3.4:0",
        "http://-x",
        "http://a b:1",
        "http://a/../b",
        "http://a//",
    ):
        with pytest.raises(Problem):
            checked_url(bad)


async def test_reports_about_unassigned_requests_are_ignored(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    mine, other = endpoint.worker(), endpoint.worker("bbbbbbbbbbbb", 102)
    await endpoint.ready(mine, other)
    answer = await endpoint.route()
    holder, other_worker = (mine, other) if answer["url"] == mine.url else (other, mine)
    known = stage.server.engine.directory.named(endpoint.name).workers

    assert (await other_worker.finish(answer["request_idx"], 12345))["known"] == 0
    await other_worker.report(working_request_idxs=[answer["request_idx"]])
    assert known[holder.launch_id].outstanding.load == 100
    assert (await holder.finish(answer["request_idx"]))["known"] == 1
    assert known[holder.launch_id].outstanding.load == 0


async def test_a_ready_or_failed_worker_is_signalled_at_once(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.script(groups=[1], members=[worker.member()])
    await worker.report()

    async def message(condition: str) -> list[dict[str, Any]]:
        batches = [batch for batch in await endpoint.received() if batch["urgent"]]
        return [w for batch in batches for w in batch["workers"] if w["condition"] == condition]

    sent = (await until(lambda: message("ready"), "ready is signalled"))[0]
    assert (sent["perf"], sent["url"], sent["loadtime_s"]) == (100.0, worker.url, 12.5)
    await worker.report(error_msg="CUDA out of memory")
    assert (await until(lambda: message("error"), "the error is signalled"))[0][
        "error"
    ] == "CUDA out of memory"


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_ready_worker_that_the_memo_lists_as_ready_is_not_signalled(
    stage: Stage, elsewhere: bool
) -> None:
    """The first reports of ten thousand workers after an engine start must not cause ten thousand signals."""
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    known_at = "http://10.9.9.9:3000" if elsewhere else worker.url
    await endpoint.script(groups=[1], members=[worker.member(p=100.0, u=known_at)])
    directory = stage.server.engine.directory
    await until(lambda: directory.named(endpoint.name).memo.members, "it is listed")
    urged: list[str] = []
    directory.named(endpoint.name).metrics_batcher.request_urgent = lambda cause, now: urged.append(cause)
    await worker.report()
    assert urged == (["a worker is ready"] if elsewhere else [])


async def test_a_burst_of_first_requests_needs_few_signals_and_counts_every_arrival(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    await endpoint.script(groups=[1])
    calls = [endpoint.begin(cost=10) for _ in range(64)]
    await endpoint.lined_up(64)

    async def all_sent() -> list[dict[str, Any]]:
        batches = await endpoint.received()
        return batches if sum(batch["arrived_requests"] for batch in batches) == 64 else []

    batches = await until(all_sent, "every arrival is sent")
    assert sum(batch["arrived_load"] for batch in batches) == 640
    assert len(batches) <= 10
    assert "first request" in batches[0]["urgent"]
    assert [b["sequence"] for b in batches] == sorted({b["sequence"] for b in batches})
    stage.server.engine.stop_holding()
    await asyncio.gather(*calls)


async def test_a_worker_that_reports_draining_gets_no_new_requests(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    leaving, staying = endpoint.worker(), endpoint.worker("bbbbbbbbbbbb", 102)
    await endpoint.ready(leaving, staying)
    await leaving.report(draining=True)
    assert {(await endpoint.route(cost=1))["url"] for _ in range(6)} == {staying.url}


async def test_a_worker_that_drains_without_an_order_is_signalled_as_suspect(stage: Stage) -> None:
    """An outbid or stopped worker gets no requests, so no client reports it; the workflow has to ask the market."""
    endpoint = await stage.endpoint()
    leaving = endpoint.worker()
    await endpoint.ready(leaving)
    await leaving.report(draining=True)

    async def doubted() -> bool:
        sent = [worker for batch in await endpoint.received() for worker in batch["workers"]]
        return any(worker.get("suspect_since") for worker in sent)

    await until(doubted, "the workflow is signalled")


async def test_a_stopping_engine_sends_a_last_batch_to_each_workflow(
    stage: Stage,
) -> None:
    endpoint = await stage.endpoint()
    await endpoint.ready(endpoint.worker())
    await stage.server.engine.signal_sender.close()

    async def goodbye() -> list[dict[str, Any]]:
        return [batch for batch in await endpoint.received() if batch["stopping"]]

    (last,) = await until(goodbye, "the goodbye")
    assert last["queued_requests"] == 0
    assert last == (await endpoint.received())[-1]


@pytest.mark.parametrize("name", ["num_requests_working", "queued", "num_requests_recieved"])
async def test_a_count_beyond_the_range_of_floats_is_refused(stage: Stage, name: str) -> None:
    """JSON integers are unbounded, and the planner divides by them."""
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.ready(worker)
    status, body = await stage.post("/worker_status/", worker.status(**{name: 10**400}))
    assert (status, body["error"]) == (400, "invalid_args")
    assert name in body["msg"]


@pytest.mark.parametrize("cost", [1e-310, 5e-324])
async def test_a_clients_cost_never_fails_an_honest_workers_report(stage: Stage, cost: float) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.ready(worker, end_report_seconds=1.0)
    given = [await endpoint.route(cost=cost), await endpoint.route(cost=1)]
    ended = [
        {
            "request_idx": route["request_idx"],
            "success": True,
            "work_started_at": 10.0,
            "work_completed_at": 11.0,
        }
        for route in given
    ]
    status, body = await stage.post(
        "/delete_requests/", {"worker_id": worker.instance_id, "mtoken": worker.token, "requests": ended}
    )
    assert (status, body["known"]) == (200, 2)


async def test_a_port_must_have_ascii_digits(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.ready(worker)
    status, body = await stage.post(
        "/worker_status/", worker.status(url="http://10.0.0.1:\u0663\u0660\u0660\u0660")
    )
    assert (status, body["error"]) == (400, "invalid_url")


async def test_a_late_report_of_an_ended_process_is_accepted_and_changes_nothing(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.ready(worker, incarnation="a", uptime_seconds=3600.0)
    known = stage.server.engine.directory.named(endpoint.name).workers[worker.launch_id]
    await endpoint.script(members=[worker.member(WorkerState.REBOOTING)])
    await worker.report(incarnation="a", uptime_seconds=3601.0, error_msg="dying", num_requests_working=3)
    assert (known.report.reported_at, known.report.error, known.report.in_flight) == (0.0, "", 0)
    await worker.report(incarnation="b", uptime_seconds=1.0, loadtime=0.0)
    await worker.report(incarnation="a", uptime_seconds=3602.0, error_msg="dying", num_requests_working=3)
    assert (known.process.id, known.report.error, known.report.in_flight) == ("b", "", 0)
    sent = known.metrics()
    assert (sent.incarnation, sent.condition, sent.error) == ("b", "loading", "")


async def test_the_name_of_a_process_is_bounded(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.script(groups=[1], members=[worker.member()])
    status, problem = await stage.post("/worker_status/", worker.status(incarnation="a" * 65))
    assert (status, problem["error"]) == (400, "invalid_args")
