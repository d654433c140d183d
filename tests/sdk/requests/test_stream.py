"""Streams: events as they arrive; retried before the first byte and never after it."""

import asyncio

import pytest
from aiohttp import web

import stoker
import stoker.requests.stream as stream_module
from tests.sdk.peers import chunks, drop, problem


async def test_events_are_yielded_as_they_arrive(peers, endpoint):
    go_on = asyncio.Event()

    async def talk(request, _):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"token": "a"}\n\n')
        await go_on.wait()
        await response.write(b'data: {"token": "b"}\n\ndata: [DONE]\n\n')
        return response

    peers.worker_reply = talk
    async with endpoint.stream("/v1/completions", {"stream": True}) as stream:
        events = aiter(stream)
        assert (await anext(events)).json() == {"token": "a"}
        go_on.set()  # the second token is sent after the first was read
        assert [event.json() async for event in events] == [{"token": "b"}]
        assert stream.worker_url == peers.worker_url
        assert stream.timing.total_s >= stream.first_byte.total_s


async def test_json_lines_and_multi_line_events_are_parsed(peers, endpoint):
    peers.worker_replies += [
        chunks(b'{"a": 1}\n{"a"', b": 2}", content_type="application/x-ndjson"),
        chunks(b"event: delta\ndata: one\ndata: two\n\n: ping\n\n"),
    ]
    async with endpoint.stream("/x", {}) as stream:
        assert [event.json() async for event in stream] == [{"a": 1}, {"a": 2}]
    async with endpoint.stream("/x", {}) as stream:
        assert [(event.event, event.data) async for event in stream] == [("delta", "one\ntwo")]


async def test_raw_bytes_come_unchanged(peers, endpoint):
    peers.worker_replies.append(chunks(b"\x00\xff", b"data: x", content_type="audio/mpeg"))
    async with endpoint.stream("/speak", {}) as stream:
        assert stream.content_type == "audio/mpeg"
        assert b"".join([part async for part in stream.bytes()]) == b"\x00\xffdata: x"


async def test_a_stream_is_retried_before_its_first_byte(peers, endpoint):
    peers.worker_replies += [
        drop(),
        problem(503, "draining", "draining"),
        chunks(then_drop=True),
        chunks(b"data: a\n\n"),
    ]
    async with endpoint.stream("/x", {}) as stream:
        assert [event.data async for event in stream] == ["a"]
        assert stream.attempts == 4


async def test_a_stream_that_breaks_after_its_first_byte_is_not_retried(peers, endpoint):
    read = asyncio.Event()

    async def break_once_read(request, _):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: a\n\n")
        await read.wait()
        request.transport.abort()
        return response

    peers.worker_reply = break_once_read
    async with endpoint.stream("/x", {}) as stream:
        events = aiter(stream)
        assert (await anext(events)).data == "a"
        read.set()
        with pytest.raises(stoker.WorkerFailed, match="broke the stream after 9 bytes"):
            await anext(events)
    assert len(peers.worker_calls) == 1


async def test_a_stalled_stream_ends_at_the_idle_timeout(peers, endpoint):
    async def fall_silent(request, _):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: a\n\n")
        await peers.client_disconnected.wait()
        return response

    peers.worker_reply = fall_silent
    async with endpoint.stream("/x", {}, idle_timeout=0.1) as stream:
        events = aiter(stream)
        assert (await anext(events)).data == "a"
        with pytest.raises(stoker.RequestTimedOut, match="sent nothing for"):
            await anext(events)


async def test_closing_a_stream_stops_the_model(peers, endpoint):
    async def talk_for_ever(request, _):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(b"data: a\n\n")
            await asyncio.sleep(0)

    peers.worker_reply = talk_for_ever
    async with endpoint.stream("/x", {}) as stream:
        async for event in stream:
            assert event.data == "a"
            break
    async with asyncio.timeout(10):
        while peers.working_now:
            await asyncio.sleep(0.001)


async def test_streams_that_end_with_done_share_one_connection(peers, endpoint, monkeypatch):
    monkeypatch.setattr(stream_module, "END_SECONDS_MAX", 10.0)  # generous for a busy machine
    ports = set()

    async def talk(request, _):
        ports.add(request.transport.get_extra_info("peername"))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: a\n\ndata: [DONE]\n\n")
        await asyncio.sleep(0)
        return response

    peers.worker_reply = talk
    for _ in range(3):
        async with endpoint.stream("/x", {}) as stream:
            assert [event.data async for event in stream] == ["a"]
    assert len(ports) == 1


@pytest.mark.parametrize("babbles", [False, True], ids=["silent", "babbling"])
async def test_a_body_that_does_not_end_after_done_is_not_waited_for(peers, endpoint, babbles):
    async def talk(request, _):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: a\n\ndata: [DONE]\n\n")
        while babbles:
            await response.write(b"data: b\n\n")
            await asyncio.sleep(0)
        await asyncio.Event().wait()

    peers.worker_reply = talk
    async with asyncio.timeout(10):
        async with endpoint.stream("/x", {}) as stream:
            assert [event.data async for event in stream] == ["a"]
        while peers.working_now:
            await asyncio.sleep(0.001)


async def test_an_error_answer_is_raised_when_the_stream_is_entered(peers, endpoint):
    peers.worker_reply = problem(422, "bad_payload", "no prompt")
    with pytest.raises(stoker.ModelError, match="no prompt"):
        async with endpoint.stream("/x", {}):
            pass
    assert len(peers.worker_calls) == 1


async def test_a_stream_without_a_byte_is_an_empty_stream(peers, endpoint):
    peers.worker_replies.append(chunks())
    async with endpoint.stream("/x", {}) as stream:
        assert [event async for event in stream] == []


async def test_a_stream_outside_its_block_is_an_error_with_a_hint(endpoint):
    stream = endpoint.stream("/x", {})
    with pytest.raises(RuntimeError, match="async with"):
        [event async for event in stream]
