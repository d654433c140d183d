"""The proxy forwards every kind of request and response body unchanged."""

import asyncio
import gzip
import json

import httpx
import pytest

from stoker_pyworker import WorkerConfig
from tests.pyworker.harness import handlers, until


async def test_only_the_payload_reaches_the_model_byte_for_byte(worker, model):
    body = (
        b'{"auth_data": %b, "session_id": null, "payload": {"a" :  1.10, "b":[ 1,2 ],"\\u00e9":"\xc3\xa9"}}'
        % (json.dumps(worker.auth()).encode())
    )
    answer = await worker.client.post("/echo", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert answer.content == b'{"a" :  1.10, "b":[ 1,2 ],"\\u00e9":"\xc3\xa9"}'
    seen = model.seen[-1]
    assert (seen.method, seen.path) == ("POST", "/echo")
    assert seen.headers["content-type"] == "application/json"


async def test_a_response_has_server_timing_and_the_worker_id(worker):
    answer = await worker.post("/echo", {"x": 1})
    timing = dict(part.strip().split(";dur=") for part in answer.headers["server-timing"].split(","))
    assert set(timing) == {"queue", "model"}
    assert all(float(value) >= 0 for value in timing.values())
    assert answer.headers["x-stoker-worker"] == "17"


async def test_model_headers_are_forwarded_except_hop_by_hop_ones(worker):
    answer = await worker.post("/echo", {"x": 1})
    assert answer.headers["x-model"] == "yes"
    assert "keep-alive" not in answer.headers


async def test_credentials_and_hop_by_hop_headers_do_not_reach_the_model(worker, model):
    await worker.client.post(
        "/echo?api_key=sk-ep-1&top=1",
        json=worker.envelope(),
        headers={
            "authorization": "Bearer sk-ep-1", "cookie": "a=b", "connection": "keep-alive, x-private",
            "x-private": "1", "te": "trailers", "x-trace": "7", "proxy-authorization": "Basic eA==",
        },
    )  # fmt: skip
    seen = model.seen[-1]
    assert seen.path == "/echo?top=1"
    assert seen.headers["x-trace"] == "7"
    hidden = {
        "authorization",
        "cookie",
        "connection",
        "x-private",
        "te",
        "proxy-authorization",
        "x-stoker-auth",
    }
    assert not hidden & set(seen.headers)
    assert seen.headers["host"] == f"127.0.0.1:{model.port}"


async def test_sse_events_are_forwarded_as_they_arrive(worker, model):
    async with worker.client.stream("POST", "/sse", json=worker.envelope()) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        pieces = answer.aiter_bytes()
        assert await anext(pieces) == b'data: {"n":1}\n\n'
        model.go.set()
        rest = b"".join([piece async for piece in pieces])
    assert rest == b'data: {"n":2}\n\ndata: [DONE]\n\n'


async def test_ndjson_is_forwarded(worker):
    answer = await worker.post("/ndjson")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in answer.text.splitlines()] == [{"n": 0}, {"n": 1}, {"n": 2}]


async def test_a_binary_response_is_forwarded_with_its_length(worker):
    answer = await worker.post("/binary")
    assert answer.content == bytes(range(256)) * 1024
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-length"] == str(256 * 1024)
    assert answer.headers["etag"] == '"1"'


async def test_a_compressed_response_stays_compressed(worker):
    async with worker.client.stream("POST", "/gzip", json=worker.envelope()) as answer:
        raw = b"".join([piece async for piece in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw) == b'{"squeezed":true}'


async def test_a_response_without_a_length_ends_when_the_model_closes(worker, model):
    model.go.set()
    answer = await worker.post("/until-close")
    assert answer.text == "no length but an end"


async def test_an_interim_response_of_the_model_is_dropped(worker):
    answer = await worker.post("/interim")
    assert (answer.status_code, answer.text) == (200, "{}")


async def test_a_response_without_a_body_is_forwarded(worker):
    answer = await worker.post("/empty")
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await worker.post("/echo")).status_code == 200


async def test_an_error_status_of_the_model_is_forwarded(worker):
    answer = await worker.post("/teapot")
    assert (answer.status_code, answer.json()) == (418, {"detail": "short and stout"})


async def test_a_multipart_upload_is_forwarded_with_its_ticket_in_a_header(worker, model):
    answer = await worker.client.post(
        "/echo",
        files={"audio": ("a.wav", b"RIFF\x00\xff", "audio/wav")},
        data={"language": "en"},
        headers={"x-stoker-auth": worker.auth()["ticket"]},
    )
    assert answer.status_code == 200
    seen = model.seen[-1]
    assert seen.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b"RIFF\x00\xff" in seen.body
    assert answer.content == seen.body
    assert "x-stoker-auth" not in seen.headers


async def test_a_raw_body_is_forwarded_with_the_route_answer_in_the_header(worker, model):
    image = bytes(range(256))
    answer = await worker.client.post(
        "/echo",
        content=image,
        headers={"x-stoker-auth": json.dumps(worker.auth()), "content-type": "image/png"},
    )
    assert answer.content == image
    assert model.seen[-1].headers["content-type"] == "image/png"


async def test_a_chunked_upload_is_assembled(worker, model):
    body = json.dumps(worker.envelope({"text": "x" * 100_000})).encode()

    async def pieces():
        for start in range(0, len(body), 9_999):
            yield body[start : start + 9_999]

    answer = await worker.client.post("/echo", content=pieces(), headers={"content-type": "application/json"})
    assert answer.json() == {"text": "x" * 100_000}
    assert "transfer-encoding" not in model.seen[-1].headers


async def test_a_body_larger_than_any_buffer_is_forwarded_in_both_directions(worker):
    payload = {"text": "y" * 5_000_000}
    answer = await worker.post("/echo", payload)
    assert answer.json() == payload


async def test_the_connection_to_the_model_is_reused(worker, model):
    for _ in range(5):
        assert (await worker.post("/echo")).status_code == 200
    assert len({seen.connection for seen in model.seen if seen.path == "/echo"}) == 1


async def test_concurrent_requests_get_their_own_responses(worker):
    async def one(number):
        return (await worker.post("/echo", {"n": number})).json()

    answers = await asyncio.gather(*(one(number) for number in range(100)))
    assert answers == [{"n": number} for number in range(100)]


async def test_a_disconnected_client_cancels_the_models_work(worker, model, engine):
    _, writer = await worker.connect()
    writer.write(worker.raw_request("/held"))
    await until(lambda: model.answering == 1)
    writer.close()
    await until(lambda: model.cut == 1)
    assert model.answering == 0
    await until(lambda: engine.finished)
    assert engine.finished[0]["status"] == "Cancelled"
    assert engine.finished[0]["success"] is True


async def test_a_client_that_disconnects_midstream_cancels_the_models_work(worker, model):
    async with worker.client.stream("POST", "/sse", json=worker.envelope()) as answer:
        await anext(answer.aiter_bytes())
    await until(lambda: model.cut == 1)
    assert worker.runtime.counts.load == 0


async def test_a_slow_client_pauses_the_model(worker, model):
    reader, writer = await worker.connect()
    writer.write(worker.raw_request("/endless"))
    await reader.readexactly(1000)
    exchange = next(iter(worker.runtime.proxy.active))
    await until(lambda: exchange.connection.paused)
    buffered = exchange.cycle.transport.get_write_buffer_size()
    assert 0 < buffered < 2_000_000, "the worker buffers without a limit"
    await reader.readexactly(20_000_000)
    writer.close()
    await until(lambda: model.cut == 1)


async def test_an_unreachable_model_is_a_502_and_reported(make_worker, model, engine):
    worker = await make_worker(model_healthcheck_url="/health")
    await model.stop()
    answer = await worker.post("/echo")
    assert (answer.status_code, answer.json()["error"]) == (502, "model_unreachable")
    await until(lambda: engine.statuses and engine.statuses[-1]["error_msg"])
    assert "takes no connection" in engine.statuses[-1]["error_msg"]
    await until(lambda: engine.finished)
    # The model never received the request, so the request did not break it.
    assert (engine.finished[0]["status"], engine.finished[0]["success"]) == ("Rejected", False)


async def test_a_model_that_crashes_before_its_response_is_a_502(worker, engine):
    answer = await worker.post("/dies")
    assert (answer.status_code, answer.json()["error"]) == (502, "model_failed")
    await until(lambda: engine.finished)
    assert (engine.finished[0]["status"], engine.finished[0]["success"]) == ("Error", False)


async def test_a_model_that_speaks_no_http_is_a_502(worker):
    answer = await worker.post("/nonsense")
    assert (answer.status_code, answer.json()["error"]) == (502, "model_failed")


async def test_an_interrupted_response_does_not_look_complete(worker, model):
    reader, writer = await worker.connect()
    writer.write(worker.raw_request("/dies-midway"))
    head = await reader.readuntil(b"data: 1")
    assert b"200 OK" in head
    model.go.set()
    rest = b""
    try:
        rest = await reader.read()
    except ConnectionError:
        rest = b""
    assert b"0\r\n\r\n" not in rest
    writer.close()


async def test_a_connection_closed_by_the_model_fails_no_request(worker, model):
    assert (await worker.post("/echo")).status_code == 200
    for writer in list(model.writers):
        writer.close()
    await until(lambda: not model.writers)
    assert (await worker.post("/echo", {"n": 2})).json() == {"n": 2}


async def test_an_http_1_0_response_ends_with_the_connection(worker, model):
    model.go.set()
    body = json.dumps(worker.envelope()).encode()
    answer = await worker.exchange(
        b"POST /sse HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        + body
    )
    head, _, events = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert events == b'data: {"n":1}\n\ndata: {"n":2}\n\ndata: [DONE]\n\n'


async def test_an_unknown_path_is_404_and_a_wrong_method_405(worker):
    assert (await worker.post("/nowhere")).json()["error"] == "route_unknown"
    answer = await worker.client.get("/echo")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_a_parser_changes_the_payload_and_a_calculator_sets_its_workload(make_worker, model, engine):
    config = WorkerConfig(
        handlers=handlers(
            request_parser=lambda payload: payload | {"model": "m"},
            workload_calculator=lambda payload: payload.get("max_tokens", 1),
        )
    )
    worker = await make_worker(config)
    answer = await worker.post("/echo", {"max_tokens": 42}, cost=50)
    assert answer.json() == {"max_tokens": 42, "model": "m"}
    await until(lambda: engine.total("cur_perf") == 42)


async def test_a_failing_calculator_falls_back_to_the_tickets_cost(make_worker, engine):
    worker = await make_worker(handlers=handlers(workload_calculator=lambda payload: payload["missing"]))
    assert (await worker.post("/echo", {}, cost=30)).status_code == 200
    await until(lambda: engine.total("cur_perf") == 30)


async def test_a_response_generator_makes_the_response(make_worker):
    from stoker_pyworker.proxy.hooks import json_response

    async def shout(request, response):
        data = await response.json()
        return json_response({"said": data["text"].upper(), "path": request.path, "status": response.status})

    worker = await make_worker(handlers=handlers(response_generator=shout))
    answer = await worker.post("/echo", {"text": "steam"})
    assert answer.json() == {"said": "STEAM", "path": "/echo", "status": 200}
    assert "server-timing" in answer.headers


async def test_a_response_generator_streams(make_worker, model):
    from stoker_pyworker.proxy.hooks import StreamResponse

    async def relay(request, response):
        answer = StreamResponse(status=response.status)
        answer.content_type = response.content_type
        await answer.prepare(request)
        async for piece in response.content.iter_any():
            await answer.write(piece.upper())
        await answer.write_eof()
        return answer

    worker = await make_worker(handlers=handlers(response_generator=relay))
    async with worker.client.stream("POST", "/sse", json=worker.envelope()) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        pieces = answer.aiter_bytes()
        assert await anext(pieces) == b'DATA: {"N":1}\n\n'
        model.go.set()
        assert b"".join([piece async for piece in pieces]).endswith(b"DATA: [DONE]\n\n")


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_hook_cannot_add_a_body_to_a_status_without_one(make_worker, streamed):
    from stoker_pyworker.proxy.hooks import Response, StreamResponse

    async def relay(request, response):
        if not streamed:
            return Response(text="a body", status=response.status)
        answer = StreamResponse(status=response.status)
        await answer.prepare(request)
        await answer.write(b"a body")
        return answer

    worker = await make_worker(handlers=handlers(response_generator=relay))
    reader, writer = await worker.connect()
    health = b"GET /healthz HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n"
    writer.write(worker.raw_request("/empty") + health)
    answers = await reader.read()
    first, second, rest = answers.split(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 204 ")
    assert b"transfer-encoding" not in first
    assert second.startswith(b"HTTP/1.1 200 ")
    assert rest == b'{"ready":true,"draining":false}'
    writer.close()


async def test_a_client_that_disconnects_during_a_hook_cancels_the_models_work(make_worker, model):
    async def wait(request, response):
        await response.read()

    worker = await make_worker(handlers=handlers(response_generator=wait))
    _, writer = await worker.connect()
    writer.write(worker.raw_request("/sse"))
    await until(lambda: model.answering == 1)
    writer.close()
    await until(lambda: model.cut == 1)
    assert worker.runtime.counts.held == 0


async def test_a_failing_hook_is_a_500_and_the_worker_stays_healthy(make_worker):
    async def fails(request, response):
        raise KeyError("choices")

    worker = await make_worker(handlers=handlers(response_generator=fails))
    answer = await worker.post("/echo")
    assert (answer.status_code, answer.json()["error"]) == (500, "hook_failed")
    assert (await worker.client.get("/healthz")).status_code == 200


async def test_expect_100_continue_is_answered_before_the_body(worker):
    reader, writer = await worker.connect()
    body = json.dumps(worker.envelope({"n": 1})).encode()
    writer.write(
        b"POST /echo HTTP/1.1\r\nHost: w\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.readuntil(b'{"n": 1}')).startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_healthz_answers_head_without_a_body(worker):
    answer = await worker.client.head("/healthz")
    assert (answer.status_code, answer.content) == (200, b"")
    assert isinstance(answer, httpx.Response)
