"""A running stand-in engine with one worker, and a client of it."""

from collections.abc import AsyncIterator, Iterator

import pytest

import stoker
from stoker.loop_thread import LoopThread
from tests.sdk.peers import ACCOUNT_KEY, Peers


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    """A running engine with the endpoint `llm`, and its worker."""
    peers = Peers()
    peers.endpoint()
    await peers.start_engine()
    await peers.start_worker()
    yield peers
    await peers.stop()


@pytest.fixture
def threaded_peers() -> Iterator[Peers]:
    """The same, served by a thread of their own: for tests without an event loop."""
    loop = LoopThread()
    peers = Peers()
    peers.endpoint()
    loop.run(peers.start_engine())
    loop.run(peers.start_worker())
    yield peers
    loop.run(peers.stop())
    loop.close()


QUICK = stoker.RetryPolicy(
    refusals_max=4,
    failures_max=2,
    engine_outage_seconds_max=30.0,
    pause_seconds_first=0.001,
    pause_seconds_max=0.01,
)


@pytest.fixture
async def client(peers: Peers) -> AsyncIterator[stoker.Serverless]:
    """A client of those, whose pauses are short."""
    async with stoker.Serverless(ACCOUNT_KEY, url=peers.url, retry=QUICK, timeout=30.0) as client:
        yield client


@pytest.fixture
async def endpoint(client: stoker.Serverless) -> stoker.Endpoint:
    """The endpoint `llm`."""
    return await client.get_endpoint("llm")
