"""The sync client. The fake engine and worker run on another thread."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest
from aiohttp import web

import stoker
from stoker import Request, RequestStatus, sync
from stoker.management.endpoints import Endpoints
from stoker.management.keys import Keys
from stoker.management.sync import SyncEndpoints, SyncKeys, SyncWorkergroups
from stoker.management.workergroups import Workergroups
from tests.sdk.conftest import QUICK
from tests.sdk.peers import ACCOUNT_KEY, Peers, chunks, json_reply, problem


@pytest.fixture
def peers(threaded_peers: Peers) -> Peers:
    return threaded_peers


@pytest.fixture
def client(peers) -> Iterator[stoker.SyncServerless]:
    with stoker.SyncServerless(ACCOUNT_KEY, url=peers.url, retry=QUICK) as client:
        yield client


def test_a_request_is_answered(client):
    endpoint = client.get_endpoint("llm")
    answer = endpoint.request("/x", {"n": 1}, cost=5)
    assert (answer.json(), answer.worker_id) == ({"echo": {"n": 1}}, 42)
    assert (endpoint.id, endpoint.name) == (7, "llm")


def test_errors_are_those_of_the_async_client(peers, client):
    endpoint = client.get_endpoint("llm")
    peers.worker_reply = problem(422, "bad", "no prompt")
    with pytest.raises(stoker.ModelError, match="no prompt"):
        endpoint.request("/x", {})
    with pytest.raises(stoker.EndpointNotFound):
        client.get_endpoint("nope")


def test_a_stream_is_iterated_and_may_be_left(peers, client):
    endpoint = client.get_endpoint("llm")
    peers.worker_replies += [
        chunks(b"data: a\n\ndata: b\n\n"),
        chunks(b"ab", b"cd"),
        chunks(b"data: a\n\ndata: b\n\n"),
    ]
    with endpoint.stream("/x", {}) as stream:
        assert [event.data for event in stream] == ["a", "b"]
        assert stream.worker_url == peers.worker_url
    with endpoint.stream("/x", {}) as stream:
        assert b"".join(stream.bytes()) == b"abcd"
    with endpoint.stream("/x", {}) as stream:
        assert next(iter(stream)).data == "a"


def test_a_map_comes_in_order_and_may_be_left(client):
    endpoint = client.get_endpoint("llm")
    answers = endpoint.map((Request(route="/x", payload={"n": n}) for n in range(20)), concurrency=4)
    assert [answer.json()["echo"]["n"] for answer in answers] == list(range(20))
    for answer in endpoint.map((Request(route="/x", payload={"n": n}) for n in range(20)), concurrency=4):
        assert answer.status == 200
        break


def test_a_session_and_a_submission(peers, client):
    endpoint = client.get_endpoint("llm")
    peers.worker_replies.append(json_reply({"session_id": "s-1"}, 201))
    with endpoint.session(cost=5) as session:
        assert session.request("/x", {"n": 1}).json() == {"echo": {"n": 1}}
        assert session.is_open
    assert not session.is_open
    submission = endpoint.submit("/x", {"n": 2})
    assert submission.result(timeout=20).json() == {"echo": {"n": 2}}
    assert submission.done()
    assert submission.status is RequestStatus.COMPLETE


def test_a_submission_is_cancelled(peers, client):
    started = threading.Event()

    async def hang(request, body):
        started.set()
        await asyncio.Event().wait()

    peers.worker_reply = hang
    submission = client.get_endpoint("llm").submit("/x", {})
    assert started.wait(10)
    assert submission.status is RequestStatus.IN_PROGRESS
    assert submission.cancel()
    with pytest.raises(CancelledError):
        submission.result(timeout=20)


def test_threads_may_share_a_client(client):
    endpoint = client.get_endpoint("llm")
    got: list[int] = []

    def ask(number: int) -> None:
        got.append(endpoint.request("/x", {"n": number}).json()["echo"]["n"])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(got) == list(range(8))


def test_management_works_without_await(peers, client):
    peers.console_replies["GET", "/api/v0/endptjobs/7/costs/"] = json_reply({"dollars": 2.0})
    assert [record.endpoint_name for record in client.endpoints.list()] == ["llm"]
    assert client.get_endpoint(7).costs() == {"dollars": 2.0}
    assert client.endpoints.costs("llm") == {"dollars": 2.0}
    path = "/api/v0/endptjobs/7/advice/"
    peers.console_replies["GET", path] = json_reply({"advice": {"active": True}})
    peers.console_replies["PUT", path] = peers.console_replies["DELETE", path] = json_reply({"success": True})
    client.endpoints.advise("llm", target_util=0.8)
    assert client.endpoints.advice("llm") == {"active": True}
    client.endpoints.stop_advice("llm")
    with pytest.raises(stoker.Invalid):
        client.workergroups.create("llm")


@pytest.mark.parametrize(
    "call",
    [
        lambda client, _: client.get_endpoints(),
        lambda client, _: client.close(),
        lambda _, submission: submission.result(),
    ],
    ids=["a call", "close", "a result"],
)
def test_a_callback_that_waits_for_its_own_client_is_an_error(peers, client, call):
    async def hang(request, body):
        await asyncio.Event().wait()

    endpoint = client.get_endpoint("llm")
    peers.worker_replies.append(hang)
    submission = endpoint.submit("/x", {})
    while submission.status is not RequestStatus.IN_PROGRESS:
        threading.Event().wait(0.01)
    peers.route_replies.append(peers.wait())
    faults: list[Exception] = []

    def ask() -> None:
        try:
            endpoint.request("/x", {}, on_wait=lambda _: call(client, submission))
        except RuntimeError as fault:
            faults.append(fault)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(5)
    assert not asking.is_alive()
    assert "cannot wait for its own client" in str(faults[0])
    assert client.get_endpoint("llm").id == 7


def test_an_interrupt_in_a_stream_is_raised_unchanged(peers, client):
    async def slow(request, _):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: a\n\n")
        await asyncio.Event().wait()

    def interrupt() -> None:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    peers.worker_reply = slow
    timer = threading.Timer(0.3, interrupt)
    got = []

    def follow() -> None:
        with client.get_endpoint("llm").stream("/x", {}) as stream:
            for event in stream:
                got.append(event.data)
                timer.start()

    # test runners may start their processes with SIGINT ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            follow()
    finally:
        signal.signal(signal.SIGINT, before)
    assert got == ["a"]
    assert caught.value.__context__ is None
    assert client.get_endpoint("llm").id == 7


def test_a_closed_client_is_an_error_and_leaves_no_thread(peers):
    before = threading.active_count()
    client = stoker.SyncServerless(ACCOUNT_KEY, url=peers.url)
    endpoint = client.get_endpoint("llm")
    client.close()
    client.close()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="closed"):
        endpoint.request("/x", {})


def test_the_sync_client_has_the_names_of_the_async_client():
    for twin, origin in [
        (stoker.SyncServerless, stoker.Serverless),
        (sync.SyncEndpoint, stoker.Endpoint),
        (SyncEndpoints, Endpoints),
        (SyncWorkergroups, Workergroups),
        (SyncKeys, Keys),
    ]:
        names = {name for name in vars(twin) if not name.startswith("_")} - {"close"}
        assert names <= {name for name in dir(origin) if not name.startswith("_")} | {"id", "name"}, twin
    for twin, origin in [
        (SyncEndpoints, Endpoints),
        (SyncWorkergroups, Workergroups),
        (SyncKeys, Keys),
    ]:
        assert {name for name in vars(origin) if not name.startswith("_")} <= set(vars(twin))
