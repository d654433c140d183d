"""Clients after the end of their event loop, thread or process: they work, or the error names the remedy."""

import asyncio
import gc
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref

import pytest

import stoker
from tests.sdk.peers import ACCOUNT_KEY


def client_of(peers) -> stoker.Serverless:
    return stoker.Serverless(ACCOUNT_KEY, url=peers.url)


async def asked(client: stoker.Serverless) -> int:
    endpoint = await client.get_endpoint("llm")
    return (await endpoint.request("/x", {})).status


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_client_works_in_the_next_event_loop(threaded_peers):
    client = client_of(threaded_peers)
    for _ in range(3):
        assert asyncio.run(asked(client)) == 200
    asyncio.run(client.aclose())
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_background_requests_of_an_ended_loop_do_not_prevent_closing(threaded_peers):
    client = client_of(threaded_peers)

    async def submit():
        return (await client.get_endpoint("llm")).submit("/x", {})

    asyncio.run(submit())
    assert asyncio.run(asked(client)) == 200
    asyncio.run(client.aclose())
    gc.collect()


async def test_a_client_of_a_running_loop_is_refused_in_another_loop(peers):
    errors = []

    def elsewhere(client):
        for work in (asked(client), client.aclose()):
            try:
                asyncio.run(work)
            except RuntimeError as fault:
                errors.append(str(fault))

    async with client_of(peers) as client:
        assert await asked(client) == 200
        thread = threading.Thread(target=elsewhere, args=(client,))
        thread.start()
        await asyncio.to_thread(thread.join, 30)
        assert len(errors) == 2
        assert all(
            "one stoker.Serverless per event loop" in each and "SyncServerless" in each for each in errors
        )
        assert await asked(client) == 200


def _in_a_child(ask, answers):
    try:
        answers.put(ask())
    except Exception as fault:  # noqa: BLE001 - reported to the parent
        answers.put(f"{type(fault).__name__}: {fault}")


def forked(ask):
    """The result of `ask` in a forked process."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about forking a process with threads
        child = context.Process(target=_in_a_child, args=(ask, answers))
        child.start()
    result = answers.get(timeout=60)
    child.join(30)
    return result


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_client_works_in_a_forked_process_and_in_its_parent(threaded_peers):
    client = client_of(threaded_peers)

    async def ask():
        return await asked(client)

    async def both():
        assert await asked(client) == 200
        result = await asyncio.to_thread(forked, lambda: asyncio.run(ask()))
        assert await asked(client) == 200  # its connection was not affected by the child
        await client.aclose()
        return result

    assert asyncio.run(both()) == 200
    gc.collect()


def test_a_sync_client_refuses_to_work_in_a_forked_process(threaded_peers):
    with stoker.SyncServerless(ACCOUNT_KEY, url=threaded_peers.url) as client:
        endpoint = client.get_endpoint("llm")
        result = forked(lambda: endpoint.request("/x", {}).status)
        assert result.startswith("RuntimeError: ")
        assert "make a client in each process" in result
        assert forked(client.close) is None
        assert endpoint.request("/x", {}).status == 200


def test_a_sync_client_that_is_dropped_ends_its_thread_and_its_connections(threaded_peers):
    before = threading.active_count()
    client = stoker.SyncServerless(ACCOUNT_KEY, url=threaded_peers.url)
    endpoint = client.get_endpoint("llm")
    kept = weakref.ref(client)
    del client
    gc.collect()
    assert kept() is None
    assert endpoint.request("/x", {}).status == 200  # the handle keeps the client alive
    del endpoint
    gc.collect()
    assert threading.active_count() == before


async def test_dropping_a_client_with_open_connections_is_a_warning(peers):
    client = client_of(peers)
    pools = (client._engine_pool, client._workers_pool)
    assert await asked(client) == 200
    with pytest.warns(ResourceWarning, match=r"Serverless .*await client.aclose"):  # noqa: PT031
        del client
        gc.collect()
    for pool in pools:
        await pool.aclose()


async def test_dropping_a_closed_or_unused_client_is_no_warning(peers):
    async with client_of(peers) as client:
        assert await asked(client) == 200
    unused = client_of(peers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del client, unused
        gc.collect()


@pytest.mark.parametrize(
    "left_open",
    [
        "answers = endpoint.map([stoker.Request(route='/x')] * 50); next(answers)",
        "stream = endpoint.stream('/x', {}).__enter__(); events = iter(stream); next(events)",
        "job = endpoint.submit('/x', {})",
        "client.get_endpoints()",
    ],
)
def test_a_program_ends_without_a_traceback_with_open_objects(threaded_peers, left_open):
    code = textwrap.dedent(
        f"""
        import stoker
        client = stoker.SyncServerless({ACCOUNT_KEY!r}, url={threaded_peers.url!r})
        endpoint = client.get_endpoint("llm")
        {left_open}
        print("done")
        """
    )
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-c", code], check=False, capture_output=True, text=True, timeout=60,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert (ended.stdout, ended.returncode) == ("done\n", 0), ended.stderr
    assert "Traceback" not in ended.stderr
