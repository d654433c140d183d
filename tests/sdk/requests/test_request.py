"""One request: routing, body, authorisation and answer."""

import dataclasses
import json

import pytest

import stoker
from stoker.requests.request import RequestOptions
from stoker.requests.session import SessionOptions, SessionSpec
from tests.sdk.peers import raw_reply


async def test_a_request_is_answered_by_a_worker(peers, endpoint):
    answer = await endpoint.request("/v1/completions", {"prompt": "hello"}, cost=256)
    assert answer.json() == {"echo": {"prompt": "hello"}}
    assert answer.response == {"echo": {"prompt": "hello"}}
    assert answer.status == 200
    assert (answer.worker_id, answer.worker_url, answer.attempts) == (42, peers.worker_url, 1)


async def test_the_worker_gets_the_whole_route_answer_and_the_payload(peers, endpoint):
    await endpoint.request("/v1/completions", {"prompt": "hello"}, cost=256)
    (call,) = peers.worker_calls
    assert call.path == "/v1/completions"
    assert call.body["payload"] == {"prompt": "hello"}
    assert call.body["session_id"] is None
    auth = call.body["auth_data"]
    assert auth["ticket"] == "ticket.of-this-request"
    assert {"url", "signature", "cost", "endpoint", "reqnum", "request_idx"} <= auth.keys()
    assert auth["cost"] == 256


async def test_no_key_ever_reaches_a_worker(peers, endpoint):
    await endpoint.request("/x", {"a": 1})
    await endpoint.request("/x", content=b"\x00\x01", content_type="image/png")
    async with endpoint.stream("/x", {}) as stream:
        [_ async for _ in stream]
    for call in peers.worker_calls:
        everything = call.raw.decode("latin1") + json.dumps(call.headers) + json.dumps(call.query)
        assert peers.endpoint_key not in everything
        assert "account-key" not in everything
        assert "Authorization" not in call.headers


async def test_routing_uses_the_endpoints_own_key(peers, endpoint):
    await endpoint.request("/x", {})
    (route,) = peers.route_calls
    assert route.headers["Authorization"] == f"Bearer {peers.endpoint_key}"
    assert route.query == {}
    assert route.body["request_idx"] == 0


async def test_an_endpoint_key_alone_can_route(peers):
    async with stoker.Serverless(peers.endpoint_key, url=peers.url) as client:
        endpoint = await client.get_endpoint("llm")
        assert endpoint.id == 7
        assert (await endpoint.request("/x", {"a": 1})).json() == {"echo": {"a": 1}}
    assert peers.console_calls == []


async def test_a_rotated_endpoint_key_is_fetched_again(peers, endpoint):
    peers.endpoint_key = "sk-ep-7-2-another"
    answer = await endpoint.request("/x", {"a": 1})
    assert answer.status == 200
    assert [route.headers["Authorization"] for route in peers.route_calls] == [
        "Bearer sk-ep-7-1-0123456789abcdef",
        "Bearer sk-ep-7-2-another",
    ]


async def test_the_parts_of_the_timing_add_up(endpoint):
    timing = (await endpoint.request("/x", {})).timing
    assert timing.queued_s == pytest.approx(0.00025)
    assert timing.model_s == pytest.approx(0.0005)
    parts = timing.waited_s + timing.lost_s + timing.queued_s + timing.model_s + timing.network_s
    assert parts == pytest.approx(timing.total_s)


async def test_a_binary_body_is_sent_unchanged_with_the_authorisation_in_a_header(peers, endpoint):
    answer = await endpoint.request("/transcribe", content=b"\x00RIFF\xff", content_type="audio/wav")
    assert answer.json() == {"echo": 6}
    (call,) = peers.worker_calls
    assert call.raw == b"\x00RIFF\xff"
    assert call.headers["Content-Type"] == "audio/wav"
    auth = call.headers["X-Stoker-Auth"]
    assert ": " not in auth
    assert json.loads(auth)["ticket"] == "ticket.of-this-request"


async def test_a_form_with_files_is_sent_as_multipart(peers, endpoint):
    await endpoint.request(
        "/edit", files={"image": ("cat.png", b"\x89PNG", "image/png")}, data={"prompt": "a hat"}
    )
    (call,) = peers.worker_calls
    assert call.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert b'filename="cat.png"' in call.raw
    assert b"\x89PNG" in call.raw
    assert b"a hat" in call.raw
    assert "X-Stoker-Auth" in call.headers


async def test_a_binary_answer_comes_back_byte_for_byte(peers, endpoint):
    peers.worker_replies.append(raw_reply(b"\x89PNG\x00\xff", "image/png"))
    answer = await endpoint.request("/draw", {"prompt": "a cat"})
    assert answer.content == b"\x89PNG\x00\xff"
    assert answer.response == b"\x89PNG\x00\xff"
    with pytest.raises(stoker.MalformedAnswer, match="image/png"):
        answer.json()


def test_the_keyword_arguments_are_the_fields_of_the_records():
    fields = {field.name for field in dataclasses.fields(stoker.Request)}
    assert RequestOptions.__annotations__.keys() == fields - {"route", "payload"}
    assert SessionOptions.__annotations__.keys() == {field.name for field in dataclasses.fields(SessionSpec)}


async def test_an_unknown_option_is_a_type_error_before_the_call(peers, endpoint):
    with pytest.raises(TypeError, match="timeot"):
        await endpoint.request("/x", {}, timeot=1)
    with pytest.raises(TypeError, match="timeot"):
        endpoint.stream("/x", {}, timeot=1)
    assert peers.route_calls == []


async def test_a_map_honours_every_option_of_its_requests(peers, endpoint):
    peers.route_replies.append(peers.wait("booting"))
    waits: list[stoker.Wait] = []
    request = stoker.Request(route="/x", idempotency_key="order-17", on_wait=waits.append)
    assert [answer.status async for answer in endpoint.map([request])] == [200]
    assert peers.worker_calls[0].headers["Idempotency-Key"] == "order-17"
    assert [wait.reason for wait in waits] == ["booting"]
