"""Retries: which failures the client hides from the caller, and which errors it raises."""

import asyncio
import socket

import pytest

import stoker
from tests.sdk.conftest import QUICK
from tests.sdk.peers import ACCOUNT_KEY, drop, half_a_body, json_reply, problem, raw_reply


def closed_port() -> str:
    """An address that refuses connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


async def test_a_waiting_request_polls_with_its_index_and_reports_the_reason(peers, endpoint):
    peers.route_replies += [
        peers.wait("recruiting", "no worker yet", position=3, eta_s=140.0),
        peers.wait("booting", "a worker loads its model", position=1),
    ]
    waits = []
    answer = await endpoint.request("/x", {}, on_wait=waits.append)
    assert answer.status == 200
    assert [(wait.reason, wait.status, wait.position, wait.eta_s) for wait in waits] == [
        ("recruiting", "no worker yet", 3, 140.0),
        ("booting", "a worker loads its model", 1, None),
    ]
    assert [route.body["request_idx"] for route in peers.route_calls] == [0, 1, 1]


def too_small(workload: str):
    return problem(
        403, "ticket_cost_exceeded", "its ticket allows less; route again", **{"X-Stoker-Workload": workload}
    )


async def test_a_cost_below_the_workload_is_routed_once_more_with_the_workload(peers, endpoint):
    peers.worker_replies.append(too_small("250.5"))
    answer = await endpoint.request("/x", {}, cost=20)
    assert answer.status == 200
    first, second = (route.body for route in peers.route_calls)
    assert (first["cost"], second["cost"]) == (20, 250.5)
    # a new request: with the old index the engine would take the worker for a broken one
    assert (second["request_idx"], second.get("failed_url", "")) == (0, "")


@pytest.mark.parametrize("workload", ["", "nan", "-1", "1e300", "19"])
async def test_a_workload_that_is_no_larger_number_is_the_error_of_the_worker(peers, endpoint, workload):
    peers.worker_replies.append(too_small(workload))
    with pytest.raises(stoker.ModelError, match="its ticket allows less"):
        await endpoint.request("/x", {}, cost=20)
    assert len(peers.route_calls) == 1


async def test_a_worker_that_never_has_enough_is_asked_twice(peers, endpoint):
    peers.worker_replies += [too_small("250"), too_small("500"), too_small("900")]
    with pytest.raises(stoker.ModelError, match="its ticket allows less"):
        await endpoint.request("/x", {}, cost=20)
    assert len(peers.route_calls) == 2


async def test_a_request_that_never_gets_a_worker_times_out_with_the_reason(peers, endpoint):
    peers.route_replies += [peers.wait("no_capacity", "no offer matches the search")] * 10_000
    with pytest.raises(stoker.RequestTimedOut, match="no offer matches the search") as caught:
        await endpoint.request("/x", {}, timeout=0.2)
    assert caught.value.reason == "no_capacity"
    assert peers.worker_calls == []


async def test_a_worker_that_does_not_finish_is_named_in_the_timeout(peers, endpoint):
    async def hang(request, _):
        await peers.client_disconnected.wait()

    peers.worker_reply = hang
    with pytest.raises(stoker.RequestTimedOut, match=peers.worker_url) as caught:
        await endpoint.request("/x", {}, timeout=1.0)
    assert caught.value.reason == "worker"
    await asyncio.wait_for(peers.client_disconnected.wait(), 10)  # the worker saw the disconnect


async def test_an_unreachable_worker_is_reported_and_the_request_goes_elsewhere(peers, endpoint):
    dead = closed_port()
    peers.route_replies.append(peers.route_to(dead))
    answer = await endpoint.request("/x", {})
    assert (answer.status, answer.attempts) == (200, 2)
    first, second = peers.route_calls
    assert "failed_url" not in first.body
    assert (second.body["failed_url"], second.body["unread"]) == (dead, True)
    assert second.body["request_idx"] == 1
    assert answer.timing.lost_s > 0


@pytest.mark.parametrize(
    "fault",
    [
        drop(),
        half_a_body(),
        problem(429, "queue_full", "the queue is full"),
        problem(503, "draining", "the worker drains"),
        problem(408, "slow", "the body took too long"),
        problem(500, "oops", "the model failed"),
        raw_reply(b"Bad Gateway", "text/html", 502),
        problem(401, "ticket_expired", "the ticket expired 3.0 s ago; route again"),
    ],
    ids=["dropped", "dropped in the body", "429", "503", "408", "500", "502", "ticket expired"],
)
async def test_a_request_is_retried_on_another_worker(peers, endpoint, fault):
    peers.worker_replies.append(fault)
    answer = await endpoint.request("/x", {"n": 1})
    assert answer.json() == {"echo": {"n": 1}}
    assert answer.attempts == 2
    assert peers.route_calls[1].body["failed_url"] == peers.worker_url
    assert [route.body["request_idx"] for route in peers.route_calls] == [0, 1]


async def test_the_affinity_key_goes_to_the_engine(peers, endpoint):
    await endpoint.request("/x", {}, affinity="conversation 17")
    await endpoint.request("/x", {})
    first, second = peers.route_calls
    assert first.body["affinity"] == "conversation 17"
    assert "affinity" not in second.body


async def test_all_attempts_carry_the_same_idempotency_key(peers, endpoint):
    peers.worker_replies += [drop(), problem(503, "draining", "draining")]
    await endpoint.request("/x", {})
    await endpoint.request("/x", {})
    await endpoint.request("/x", {}, idempotency_key="order-17")
    keys = [call.headers["Idempotency-Key"] for call in peers.worker_calls]
    assert keys[0] == keys[1] == keys[2]
    assert keys[3] not in {keys[0], "order-17"}
    assert keys[4] == "order-17"


async def test_every_attempt_has_a_ticket_of_its_own(peers, endpoint):
    peers.worker_replies.append(drop())
    await endpoint.request("/x", {})
    assert [call.body["auth_data"]["reqnum"] for call in peers.worker_calls] == [1, 2]


async def test_refusals_are_bounded(peers, endpoint):
    peers.worker_reply = problem(429, "queue_full", "the queue is full")
    with pytest.raises(stoker.WorkerFailed, match="the queue is full") as caught:
        await endpoint.request("/x", {})
    assert caught.value.attempts == len(peers.worker_calls) == QUICK.refusals_max + 1
    assert caught.value.status == 429


async def test_failures_are_bounded_and_the_error_carries_the_models_answer(peers, endpoint):
    peers.worker_reply = json_reply({"detail": "CUDA out of memory"}, 500)
    with pytest.raises(stoker.ModelError, match="CUDA out of memory") as caught:
        await endpoint.request("/x", {})
    assert (caught.value.status, caught.value.body) == (500, {"detail": "CUDA out of memory"})
    assert len(peers.worker_calls) == QUICK.failures_max + 1


async def test_a_worker_that_always_drops_is_a_worker_failure(peers, endpoint):
    peers.worker_reply = drop()
    with pytest.raises(stoker.WorkerFailed, match="dropped") as caught:
        await endpoint.request("/x", {})
    assert caught.value.status is None
    assert caught.value.worker_url == peers.worker_url


async def test_a_ticket_refused_twice_is_unauthorised(peers, endpoint):
    peers.worker_reply = problem(401, "ticket_forged", "the ticket was not made for this worker")
    with pytest.raises(stoker.Unauthorised, match="ticket_forged"):
        await endpoint.request("/x", {})
    assert len(peers.worker_calls) == 2


@pytest.mark.parametrize("body", [b"", b"401: Unauthorized"], ids=["empty", "aiohttp's"])
async def test_a_401_without_a_code_is_about_the_ticket_as_with_the_official_worker(peers, endpoint, body):
    peers.worker_reply = raw_reply(body, "text/plain", 401)
    with pytest.raises(stoker.Unauthorised, match="did not accept the engine's ticket"):
        await endpoint.request("/x", {})
    assert len(peers.worker_calls) == 2


@pytest.mark.parametrize(
    "reply",
    [
        json_reply({"error": "Unauthorized"}, 401),
        json_reply({"error": {"message": "Unauthorized: no valid api key"}}, 401),
        raw_reply(b"Unauthorized: give me a token", "text/plain", 401),
    ],
    ids=["vLLM", "OpenAI", "text"],
)
async def test_a_401_of_the_model_is_a_model_error_and_is_not_retried(peers, endpoint, reply):
    peers.worker_reply = reply
    with pytest.raises(stoker.ModelError, match="an API key of its own") as caught:
        await endpoint.request("/x", {})
    assert caught.value.status == 401
    assert "Unauthorized" in str(caught.value.body)
    assert len(peers.worker_calls) == 1


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_client_errors_are_not_retried(peers, endpoint, status):
    peers.worker_reply = problem(status, "bad_payload", "max_tokens must be positive")
    with pytest.raises(stoker.ModelError, match="max_tokens must be positive") as caught:
        await endpoint.request("/x", {})
    assert caught.value.status == status
    assert caught.value.body["error"] == "bad_payload"
    assert len(peers.worker_calls) == 1


async def test_without_retry_there_is_one_attempt(peers, endpoint):
    peers.worker_reply = problem(503, "draining", "the worker drains")
    with pytest.raises(stoker.WorkerFailed):
        await endpoint.request("/x", {}, retry=False)
    assert len(peers.worker_calls) == 1


async def test_a_request_survives_an_engine_restart(peers, endpoint):
    await peers.stop_engine()
    waits: list[stoker.Wait] = []
    noticed = asyncio.Event()

    def on_wait(wait: stoker.Wait) -> None:
        waits.append(wait)
        noticed.set()

    running = asyncio.ensure_future(endpoint.request("/x", {"n": 1}, on_wait=on_wait))
    await asyncio.wait_for(noticed.wait(), 20)
    await peers.start_engine()
    answer = await running
    assert answer.json() == {"echo": {"n": 1}}
    assert {wait.reason for wait in waits} == {"engine"}
    assert answer.attempts == 1


async def test_an_engine_restart_keeps_the_queue_position_of_a_request(peers, endpoint):
    peers.route_replies += [
        peers.wait(),
        problem(503, "starting", "the engine starts"),
        raw_reply(b"Bad Gateway", "text/html", 502),
        drop(),
        half_a_body(),
    ]
    answer = await endpoint.request("/x", {})
    assert answer.status == 200
    assert [route.body["request_idx"] for route in peers.route_calls] == [0, 1, 1, 1, 1, 1]


async def test_the_engines_retry_after_is_honoured(peers, endpoint):
    peers.route_replies.append(problem(429, "too_many", "slow down", **{"Retry-After": "0.01"}))
    assert (await endpoint.request("/x", {})).status == 200


async def test_the_error_for_a_long_outage_names_the_engine(peers):
    policy = stoker.RetryPolicy(
        engine_outage_seconds_max=0.05, pause_seconds_first=0.001, pause_seconds_max=0.005
    )
    async with stoker.Serverless(ACCOUNT_KEY, url=peers.url, retry=policy) as client:
        endpoint = await client.get_endpoint("llm")
        await peers.stop_engine()
        with pytest.raises(stoker.EngineUnavailable, match=peers.url):
            await endpoint.request("/x", {})
        with pytest.raises(stoker.EngineUnavailable, match=peers.url):
            await client.endpoints.list()


async def test_a_wrong_key_is_not_retried(peers):
    async with stoker.Serverless("sk-ep-7-1-wrong", url=peers.url, retry=QUICK) as client:
        endpoint = await client.get_endpoint("llm")
        with pytest.raises(stoker.Unauthorised, match="opens no endpoint"):
            await endpoint.request("/x", {})
    assert len(peers.route_calls) == 1


async def test_a_deleted_endpoint_is_not_retried(peers, endpoint):
    peers.records.clear()
    with pytest.raises(stoker.EndpointNotFound, match="no such endpoint"):
        await endpoint.request("/x", {})


@pytest.mark.parametrize(
    "answer",
    [
        raw_reply(b"<html>hello</html>", "text/html"),
        raw_reply(b"{", "application/json"),
        json_reply([]),
        json_reply({"url": None, "request_idx": 1}),
        json_reply({"url": "http://127.0.0.1:1", "request_idx": 1}),
        json_reply({"status": "waiting", "endpoint": "llm"}),
    ],
    ids=["html", "no json", "a list", "a null url", "no signature", "no index"],
)
async def test_an_answer_outside_the_protocol_is_not_retried(peers, endpoint, answer):
    peers.route_replies.append(answer)
    with pytest.raises(stoker.MalformedAnswer, match=r"stoker engine|expected an object"):
        await endpoint.request("/x", {})
    assert len(peers.route_calls) == 1


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "",
        "http://",
        "http://a:b/",
        "http://u:p@h/",
        "http://h/?x=1",
        "http://a b/",
        "http://[::1/",
    ],
)
async def test_a_route_to_an_invalid_worker_address_is_refused(peers, endpoint, url):
    peers.route_replies.append(
        json_reply(
            {"url": url, "signature": "s", "cost": 1, "endpoint": "llm", "reqnum": 1, "request_idx": 1}
        )
    )
    with pytest.raises(stoker.MalformedAnswer, match="no http"):
        await endpoint.request("/x", {})


async def test_a_redirect_is_not_followed(peers, endpoint):
    peers.route_replies.append(json_reply({}, 307, Location="http://elsewhere.example/route/"))
    with pytest.raises(stoker.MalformedAnswer, match=r"elsewhere\.example"):
        await endpoint.request("/x", {})


async def test_cancelling_disconnects_from_the_worker(peers, endpoint):
    reached = asyncio.Event()

    async def hang(request, _):
        reached.set()
        await asyncio.Event().wait()

    peers.worker_reply = hang
    running = asyncio.ensure_future(endpoint.request("/x", {}))
    await asyncio.wait_for(reached.wait(), 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.wait_for(peers.client_disconnected.wait(), 10)


@pytest.mark.parametrize(
    "route", ["", "x", "//evil.example/x", "/a b", "/a?b=c", "/a#b", "/../x", "http://evil/x", "/ä"]
)
async def test_a_route_that_is_no_path_is_refused_before_the_call(peers, endpoint, route):
    with pytest.raises(stoker.Invalid, match="route"):
        await endpoint.request(route, {})
    assert peers.route_calls == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"cost": -1}, "cost"),
        ({"cost": float("nan")}, "cost"),
        ({"cost": 1e13}, "cost"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"payload": {"x": float("inf")}}, "JSON"),
        ({"payload": {"x": object()}}, "JSON"),
        ({"payload": {}, "content": b"x"}, "several"),
        ({"content_type": "a/b"}, "content_type"),
        ({"content": b"x", "content_type": "a/b\r\nX: y"}, "content type"),
        ({"files": {"a": object()}}, "form"),
        ({"idempotency_key": "a\nb"}, "idempotency"),
        ({"affinity": "k" * 257}, "affinity has 257 characters"),
    ],
)
async def test_arguments_that_cannot_be_sent_are_refused_before_the_call(peers, endpoint, options, sentence):
    with pytest.raises(stoker.Invalid, match=sentence):
        await endpoint.request("/x", **options)
    assert peers.route_calls == []


async def test_every_copy_of_a_request_is_routed_with_one_fingerprint(peers, endpoint):
    for payload in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 3}):
        await endpoint.request("/x", payload)
    for _ in range(2):  # each form has a boundary of its own
        await endpoint.request("/x", files={"f": ("n", b"data")})
    one, same, other, form, same_form = (route.body["fingerprint"] for route in peers.route_calls)
    assert one == same
    assert form == same_form
    assert len({one, other, form}) == 3


async def test_a_request_that_breaks_workers_ends_with_the_engines_message(peers, endpoint):
    message = "this request was on 2 workers when they broke; change the request"
    peers.route_replies.append(problem(422, "request_breaks_workers", message))
    with pytest.raises(stoker.Refused, match="2 workers when they broke") as caught:
        await endpoint.request("/x", {})
    assert (caught.value.status, caught.value.code) == (422, "request_breaks_workers")
    assert len(peers.route_calls) == 1
