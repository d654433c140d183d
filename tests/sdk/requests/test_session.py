"""Sessions: one worker, reserved for one caller."""

import pytest

import stoker
from tests.sdk.peers import chunks, drop, json_reply, problem


@pytest.fixture
def opened(peers):
    """The worker opens one session and echoes other requests."""
    peers.worker_replies.append(json_reply({"session_id": "s-1", "expiration": 2e9}, 201))
    return peers


async def test_a_session_keeps_its_worker_and_its_authorisation(opened, endpoint):
    async with endpoint.session(cost=50, lifetime=120, on_close_route="/flush") as session:
        await session.request("/x", {"n": 1})
        await session.request("/x", {"n": 2})
        assert session.id == "s-1"
        assert session.worker_url == opened.worker_url
    create, first, second, end = opened.worker_calls
    assert create.path == "/session/create"
    assert create.body["payload"] == {"lifetime": 120, "on_close_route": "/flush", "on_close_payload": None}
    assert create.body["auth_data"]["cost"] == 50
    assert first.body["session_id"] == second.body["session_id"] == "s-1"
    assert first.body["auth_data"] == second.body["auth_data"] == create.body["auth_data"]
    assert len(opened.route_calls) == 1
    assert "fingerprint" not in opened.route_calls[0].body, "sessions with equal options are no copies"
    assert end.path == "/session/end"
    assert end.body == {"session_id": "s-1", "session_auth": create.body["auth_data"]}


async def test_streams_and_raw_bodies_run_in_a_session(opened, endpoint):
    async with endpoint.session() as session:
        opened.worker_replies.append(chunks(b"data: a\n\n"))
        async with session.stream("/x", {}) as stream:
            assert [event.data async for event in stream] == ["a"]
        await session.request("/x", content=b"abc")
    assert opened.worker_calls[1].body["session_id"] == "s-1"
    assert opened.worker_calls[2].headers["X-Stoker-Session"] == "s-1"


async def test_a_session_that_expired_is_closed(opened, endpoint):
    async with endpoint.session() as session:
        opened.worker_replies.append(problem(410, "session_gone", "the session expired"))
        with pytest.raises(stoker.SessionClosed, match="expired"):
            await session.request("/x", {})
        assert not session.is_open
        with pytest.raises(stoker.SessionClosed, match="not open"):
            await session.request("/x", {})
    assert [call.path for call in opened.worker_calls] == ["/session/create", "/x"]


async def test_a_session_whose_worker_is_gone_is_closed(opened, endpoint):
    async with endpoint.session() as session:
        opened.worker_reply = drop()
        with pytest.raises(stoker.SessionClosed, match="state"):
            await session.request("/x", {})
        assert not session.is_open
    assert len(opened.route_calls) == 1


async def test_a_refusal_of_a_busy_worker_does_not_end_a_session(opened, endpoint):
    async with endpoint.session() as session:
        opened.worker_replies.append(problem(429, "queue_full", "the queue is full"))
        assert (await session.request("/x", {"n": 1})).json() == {"echo": {"n": 1}}
        assert session.is_open
    assert len(opened.route_calls) == 1


async def test_a_session_is_opened_on_another_worker_when_one_refuses(peers, endpoint):
    peers.worker_replies += [
        problem(429, "too_many_sessions", "10 are open"),
        json_reply({"session_id": "s-2"}, 201),
    ]
    async with endpoint.session() as session:
        assert session.id == "s-2"
    assert len(peers.route_calls) == 2


async def test_a_failed_end_of_a_session_is_no_error_of_the_block(opened, endpoint):
    async with endpoint.session() as session:
        opened.worker_reply = problem(500, "oops", "the worker is broken")
    assert not session.is_open


async def test_an_answer_without_a_session_id_is_malformed(peers, endpoint):
    with pytest.raises(stoker.MalformedAnswer, match="session_id"):
        async with endpoint.session():
            pass


async def test_a_lifetime_of_zero_is_refused(endpoint):
    with pytest.raises(stoker.Invalid, match="lifetime"):
        endpoint.session(lifetime=0)
