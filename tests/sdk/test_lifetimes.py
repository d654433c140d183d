"""Clients that outlive their event loop, their thread or their process: they work, or say what to do."""

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
def test_a_client_goes_on_in_the_next_event_loop(threaded_peers):
    client = client_of(threaded_peers)
    for _ in range(3):
        assert asyncio.run(asked(client)) == 200
    asyncio.run(client.aclose())
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_work_in_the_background_ends_with_its_loop_and_does_not_keep_the_client_from_closing(threaded_peers):
    client = client_of(threaded_peers)

    async def submit():
        return (await client.get_endpoint("llm")).submit("/x", {})

    asyncio.run(submit())
    assert asyncio.run(asked(client)) == 200
    asyncio.run(client.aclose())
    gc.collect()


async def test_a_loop_that_still_runs_keeps_its_client(peers):
    said = []

    def elsewhere(client):
        for work in (asked(client), client.aclose()):
            try:
                asyncio.run(work)
            except RuntimeError as fault:
                said.append(str(fault))

    async with client_of(peers) as client:
        assert await asked(client) == 200
        thread = threading.Thread(target=elsewhere, args=(client,))
        thread.start()
        await asyncio.to_thread(thread.join, 30)
        assert len(said) == 2
        assert all(
            "one stoker.Serverless per event loop" in each and "SyncServerless" in each for each in said
        )
        assert await asked(client) == 200


def _in_a_child(ask, answers):
    try:
        answers.put(ask())
    except Exception as fault:  # noqa: BLE001 - told to the parent
        answers.put(f"{type(fault).__name__}: {fault}")


def forked(ask):
    """What `ask` answers in a forked process."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of a process with threads, which is the case here
        child = context.Process(target=_in_a_child, args=(ask, answers))
        child.start()
    said = answers.get(timeout=60)
    child.join(30)
    return said


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_client_works_in_a_forked_process_and_goes_on_in_its_parent(threaded_peers):
    client = client_of(threaded_peers)

    async def ask():
        return await asked(client)

    async def both():
        assert await asked(client) == 200
        said = await asyncio.to_thread(forked, lambda: asyncio.run(ask()))
        assert await asked(client) == 200  # its own connection is as it was
        await client.aclose()
        return said

    assert asyncio.run(both()) == 200
    gc.collect()


def test_a_sync_client_says_that_its_thread_stayed_in_the_parent(threaded_peers):
    with stoker.SyncServerless(ACCOUNT_KEY, url=threaded_peers.url) as client:
        endpoint = client.get_endpoint("llm")
        said = forked(lambda: endpoint.request("/x", {}).status)
        assert said.startswith("RuntimeError: ")
        assert "make a client in each process" in said
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
    assert endpoint.request("/x", {}).status == 200  # a handle keeps what it needs
    del endpoint
    gc.collect()
    assert threading.active_count() == before


async def test_a_client_that_is_dropped_with_open_connections_is_told_of(peers):
    client = client_of(peers)
    pools = (client._engine_pool, client._workers_pool)
    assert await asked(client) == 200
    with pytest.warns(ResourceWarning, match=r"Serverless .*await client.aclose"):  # noqa: PT031
        del client
        gc.collect()
    for pool in pools:
        await pool.aclose()


async def test_a_client_that_was_closed_or_never_used_is_dropped_without_a_word(peers):
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
def test_a_program_ends_whatever_it_left_open(threaded_peers, left_open):
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
