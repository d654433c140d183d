"""`POST /route/` over real HTTP, with endpoints whose memo is scripted."""

import asyncio
import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from engine.settings import Timing
from stoker_wire.security.ticket import TicketRefused, verify_ticket
from stoker_wire.security.token import ticket_key
from stoker_wire.states import WorkerState
from tests.engine.conftest import ALICE, BOB, Stage
from tests.engine.fake_endpoint_workflow import until

QUICK = Timing(watch_seconds=0.05, hold_seconds=0.05)


async def test_a_route_answer_contains_everything_that_an_official_client_needs(
    stage: Stage,
) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.ready(worker)

    answer = await endpoint.route(cost=42)

    assert answer["url"] == worker.url
    assert answer["cost"] == 42
    assert answer["endpoint"] == endpoint.name
    assert answer["worker_id"] == worker.instance_id
    assert 1 <= answer["request_idx"] < 2**53
    assert answer["reqnum"] >= 1
    ticket = verify_ticket(answer["ticket"], ticket_key(worker.token), worker=worker.launch_id, now=0)
    assert (ticket.e, ticket.c, ticket.r) == (endpoint.name, 42, answer["request_idx"])


async def test_the_official_worker_accepts_the_signature_with_the_public_key(
    stage: Stage,
) -> None:
    endpoint = await stage.endpoint()
    await endpoint.ready(endpoint.worker())
    answer = await endpoint.route()

    status, pem = await stage.call("GET", "/pubkey/")

    assert status == 200
    public_key = load_pem_public_key(pem.encode())
    assert isinstance(public_key, rsa.RSAPublicKey)
    message = json.dumps({"url": answer["url"]}, indent=4, sort_keys=True).encode()
    signature = base64.b64decode(answer["signature"])
    public_key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())


async def test_a_ticket_is_valid_for_its_worker_only(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    worker, other = endpoint.worker(), endpoint.worker("bbbbbbbbbbbb", 102)
    await endpoint.ready(worker)
    ticket = (await endpoint.route())["ticket"]
    with pytest.raises(TicketRefused) as refused:
        verify_ticket(ticket, ticket_key(other.token), worker=other.launch_id, now=0)
    assert refused.value.code == "ticket_forged"


async def test_a_held_call_is_answered_as_soon_as_a_worker_is_ready(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.script(groups=[1], members=[worker.member()])
    call = endpoint.begin()
    await endpoint.lined_up(1)

    await worker.report()

    answer = await call
    assert answer["url"] == worker.url
    assert answer["waited_ms"] > 0


async def test_held_calls_are_served_in_order_of_arrival(stage: Stage) -> None:
    endpoint = await stage.endpoint(max_queue_time=1)  # 100 load/s: one request of 100 at a time
    worker = endpoint.worker()
    await endpoint.ready(worker)
    running = (await endpoint.route())["request_idx"]
    calls = []
    for count in range(1, 4):
        calls.append(endpoint.begin())
        await endpoint.lined_up(count)

    served = []
    for remaining in (2, 1, 0):
        await worker.finish(running)
        await endpoint.lined_up(remaining)
        done = [call for call in calls if call.done() or call in served]
        await asyncio.wait(calls[: 3 - remaining])
        served = calls[: 3 - remaining]
        assert all(call in served for call in done)
        running = served[-1].result()["request_idx"]


async def test_a_call_without_a_worker_gets_the_reason_and_keeps_its_position(bare_stage: Stage) -> None:
    stage = bare_stage
    await stage.start_engine(timing=QUICK)
    endpoint = await stage.endpoint()
    await endpoint.script(
        groups=[1], wait_code="booting", wait_reason="2 workers are booting", wait_until=4_000_000_000
    )

    first, second = await endpoint.route(), await endpoint.route()
    again = await endpoint.route(request_idx=second["request_idx"])

    assert "url" not in first
    assert first["request_idx"] >= 1
    assert (first["reason"], first["status"], first["position"]) == ("booting", "2 workers are booting", 0)
    assert first["eta_s"] > 0
    assert (again["request_idx"], again["position"]) == (second["request_idx"], 1)


@pytest.mark.parametrize(
    ("scripted", "reason"),
    [
        ({"groups": []}, "no_capacity"),
        ({"groups": [1]}, "recruiting"),
        ({"groups": [1], "wait_code": "budget", "wait_reason": "the budget is spent"}, "no_capacity"),
        ({"groups": [1], "config": {"endpoint_state": "stopped"}}, "stopped"),
        (
            {"groups": [1], "members": [{"l": "aaaaaaaaaaaa", "i": 1, "g": 1, "s": "model_loading"}]},
            "booting",
        ),
    ],
)
async def test_the_reason_for_waiting_is_a_documented_code(
    bare_stage: Stage, scripted: dict[str, Any], reason: str
) -> None:
    await bare_stage.start_engine(timing=QUICK)
    endpoint = await bare_stage.endpoint()
    await endpoint.script(**scripted)
    answer = await endpoint.route()
    assert (answer["reason"], bool(answer["status"])) == (reason, True)


async def test_busy_workers_are_a_reason_with_an_expected_queue_time(bare_stage: Stage) -> None:
    await bare_stage.start_engine(timing=QUICK)
    endpoint = await bare_stage.endpoint(max_queue_time=1)
    await endpoint.ready(endpoint.worker())
    await endpoint.route()
    answer = await endpoint.route()
    assert (answer["reason"], answer["eta_s"]) == ("busy", 2.0)


async def test_a_rerouted_request_gets_another_worker_and_the_failed_one_is_signalled(
    stage: Stage,
) -> None:
    endpoint = await stage.endpoint()
    await endpoint.ready(endpoint.worker(), endpoint.worker("bbbbbbbbbbbb", 102))
    first = await endpoint.route()
    second = await endpoint.route(request_idx=first["request_idx"])
    assert second["request_idx"] == first["request_idx"]
    assert second["url"] != first["url"]
    assert second["reqnum"] != first["reqnum"]

    async def sent() -> list[dict[str, Any]]:
        batches = await endpoint.received()
        return [w for b in batches if b["urgent"] for w in b["workers"] if w["suspect_since"]]

    suspects = await until(sent, "the suspect is signalled")
    assert suspects[0]["instance_id"] == first["worker_id"]


async def test_a_client_that_retries_without_pause_is_answered_at_once(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    workers = [endpoint.worker(letter * 12, 101 + n) for n, letter in enumerate("abcdef")]
    await endpoint.ready(*workers)
    request_idx = (await endpoint.route())["request_idx"]
    routed = [("url" in await endpoint.route(request_idx=request_idx)) for _ in range(20)]
    assert routed[0] is True
    assert routed[1:] == [False] * 19


async def test_a_draining_worker_gets_no_requests_and_its_workflow_learns_that_the_drain_was_seen(
    stage: Stage,
) -> None:
    endpoint = await stage.endpoint()
    leaving, staying = endpoint.worker(), endpoint.worker("bbbbbbbbbbbb", 102)
    await endpoint.ready(leaving, staying)
    await endpoint.script(members=[leaving.member(d=True), staying.member()])

    urls = {(await endpoint.route(cost=1))["url"] for _ in range(10)}

    assert urls == {staying.url}

    async def sent() -> list[dict[str, Any]]:
        batches = await endpoint.received()
        return [w for b in batches if b["urgent"] for w in b["workers"] if w["drain_seen"]]

    assert (await until(sent, "the drain is seen"))[0]["launch_id"] == leaving.launch_id
    await leaving.report()

    async def drained() -> bool:
        return any("holds nothing" in batch["urgent"] for batch in await endpoint.received())

    await until(drained, "the drained worker is signalled")


async def test_a_new_engine_routes_at_once_from_the_memo(bare_stage: Stage) -> None:
    old = await bare_stage.start_engine()
    endpoint = await bare_stage.endpoint()
    worker = endpoint.worker()
    await endpoint.script(groups=[1], members=[worker.member(u=worker.url, p=100.0)])
    await worker.report()
    request_idx = (await endpoint.route())["request_idx"]
    await bare_stage.stop_engine(old)

    await bare_stage.start_engine()

    answer = await endpoint.route(request_idx=request_idx)
    assert (answer["url"], answer["request_idx"]) == (worker.url, request_idx)


async def test_a_stopping_engine_answers_held_calls_first(bare_stage: Stage) -> None:
    server = await bare_stage.start_engine()
    endpoint = await bare_stage.endpoint()
    call = endpoint.begin()
    await endpoint.lined_up(1)
    await bare_stage.stop_engine(server)
    answer = await call
    assert "url" not in answer
    assert "restart" in answer["status"]


async def test_a_client_that_disconnects_while_it_is_held_occupies_no_worker(stage: Stage) -> None:
    endpoint = await stage.endpoint(max_queue_time=1)
    worker = endpoint.worker()
    await endpoint.script(groups=[1], members=[worker.member()])
    gone = endpoint.begin()
    await endpoint.lined_up(1)
    gone.cancel()
    await endpoint.lined_up(0)
    staying = endpoint.begin()
    await endpoint.lined_up(1)
    await worker.report()
    assert (await staying)["url"] == worker.url


async def test_two_engines_serve_the_same_endpoint_with_indices_and_batches_of_their_own(
    stage: Stage,
) -> None:
    other = await stage.start_engine()
    endpoint = await stage.endpoint()
    worker = endpoint.worker()
    await endpoint.script(groups=[1], members=[worker.member()])
    await worker.report()
    await worker.report(other)
    answers = [await endpoint.route(server) for server in stage.servers for _ in range(5)]
    assert {answer["url"] for answer in answers} == {worker.url}
    assert len({answer["request_idx"] for answer in answers}) == 10
    assert len({answer["reqnum"] for answer in answers}) == 10

    async def both() -> bool:
        return len({batch["engine_id"] for batch in await endpoint.received()}) == 2

    await until(both, "both engines have spoken")


async def test_account_and_endpoint_keys_are_accepted_in_header_query_and_body(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    await endpoint.ready(endpoint.worker())
    for key in (endpoint.key, ALICE):
        asked = {"endpoint": endpoint.name, "cost": 1}
        assert (await stage.post("/route/", asked, key=key))[0] == 200
        assert (await stage.post(f"/route/?api_key={key}", asked))[0] == 200
        assert (await stage.post("/route/", asked | {"api_key": key}))[0] == 200
        assert (await stage.post("/route/", asked | {"api_key": key}, key="stale"))[0] == 200


async def test_keys_of_other_accounts_are_refused(stage: Stage) -> None:
    endpoint, other = await stage.endpoint(), await stage.endpoint(owner="bob")
    await endpoint.ready(endpoint.worker())
    asked = {"endpoint": endpoint.name}
    for key, status in [
        ("", 401),
        ("wrong", 401),
        (endpoint.key[:-1] + "0" if endpoint.key[-1] != "0" else endpoint.key[:-1] + "1", 401),
        (other.key, 401),
        (BOB, 404),
    ]:
        answered, problem = await stage.post("/route/", asked, key=key)
        assert answered == status, (key, problem)
        assert problem["success"] is False
    assert (await stage.post("/route/", {"endpoint": "nobody"}, key=ALICE))[0] == 404
    assert (await stage.post("/route/", {"endpoint": "nobody"}, key=endpoint.key))[0] == 404
    assert (await stage.post("/route/", {"endpoint": "nobody"}, key="wrong"))[0] == 401


MALFORMED: list[tuple[Any, str]] = [
    (b"{", "JSON"),
    (b"[1]", "list"),
    (b"null", "null"),
    (b"\x00", "JSON"),
    (b'{"endpoint": "\xff"}', "JSON"),
    (b"[" * 100_000, "nests objects and lists"),
    ({}, "endpoint"),
    ({"endpoint": ""}, "endpoint"),
    ({"endpoint": "x" * 256}, "endpoint"),
    ({"endpoint": ["x"]}, "endpoint"),
    ({"endpoint": "x", "cost": -1}, "cost"),
    ({"endpoint": "x", "cost": 1e13}, "cost"),
    (b'{"endpoint": "x", "cost": NaN}', "JSON"),
    (b'{"endpoint": "x", "cost": 1e999}', ""),
    ({"endpoint": "x", "cost": "much"}, "cost"),
    ({"endpoint": "x", "request_idx": -1}, "request_idx"),
    ({"endpoint": "x", "request_idx": 2**54}, "request_idx"),
    ({"endpoint": "x", "request_idx": 1.5}, "request_idx"),
    ({"endpoint": "x", "replay_timeout": 1e9}, "replay_timeout"),
    ({"endpoint": "x", "failed_url": "x" * 3000}, "failed_url"),
]


@pytest.mark.parametrize(("body", "word"), MALFORMED)
async def test_a_malformed_route_request_is_a_400_that_names_the_field(
    stage: Stage, body: Any, word: str
) -> None:
    status, problem = await stage.post("/route/", body, key=ALICE)
    assert status == 400, problem
    assert problem["success"] is False
    assert word in problem["error_msg"]


async def test_the_hot_path_accepts_what_the_wire_type_accepts(stage: Stage) -> None:
    endpoint = await stage.endpoint()
    await endpoint.ready(endpoint.worker())
    answer = await endpoint.route(cost="7", request_idx="0", a_newer_field={"is": "ignored"})
    assert answer["cost"] == 7


async def test_a_starting_worker_is_not_routable_before_its_own_report(bare_stage: Stage) -> None:
    await bare_stage.start_engine(timing=QUICK)
    endpoint = await bare_stage.endpoint()
    worker = endpoint.worker()
    await endpoint.script(groups=[1], members=[worker.member(WorkerState.MODEL_LOADING)])
    await worker.report(loadtime=0.0, max_perf=0.0)
    assert "url" not in await endpoint.route()
    await worker.report(error_msg="CUDA out of memory")
    assert "url" not in await endpoint.route()
    await worker.report()
    assert (await endpoint.route())["url"] == worker.url


async def test_held_calls_learn_at_once_that_a_boot_failed_and_that_no_machine_can_help(
    bare_stage: Stage,
) -> None:
    await bare_stage.start_engine(timing=Timing(watch_seconds=0.05, hold_seconds=3600.0))
    endpoint = await bare_stage.endpoint()
    held = endpoint.begin()
    await endpoint.lined_up(1)
    await endpoint.script(wait_code="booting", wait_reason="a boots; last failure: the disk is full")
    answer = await asyncio.wait_for(held, 60)
    assert (answer["reason"], "the disk is full" in answer["status"]) == ("booting", True)
    held = endpoint.begin()
    await endpoint.lined_up(1)
    await endpoint.script(wait_code="booting", wait_reason="b boots; last failure: the disk is full")
    await endpoint.lined_up(1)  # told once, not with every boot
    await endpoint.script(
        wait_code="worker_failed", wait_reason="the repository is gated: accept its licence"
    )
    answer = await asyncio.wait_for(held, 60)
    assert (answer["reason"], "the repository is gated" in answer["status"]) == ("worker_failed", True)
    again = endpoint.begin()
    await endpoint.lined_up(1)
    await endpoint.script(wait_reason="the same, in other words")
    await endpoint.lined_up(1)  # told once, not with every word
    again.cancel()
