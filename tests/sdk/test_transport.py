"""Connections: reused, bounded in number, and closed."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from stoker.transport import ConnectionPool, connections_allowed


class CountingServer:
    """A server that counts its connections."""

    def __init__(self) -> None:
        self.opened = 0
        self.open_now = 0
        self.port = 0
        self.changed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()

    async def until_open(self, count: int) -> None:
        async with asyncio.timeout(20):
            while self.open_now != count:
                self.changed.clear()
                await self.changed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self.open_now += 1
        self._writers.add(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            self.open_now -= 1
            self.changed.set()
            writer.close()


@pytest.fixture
async def servers() -> AsyncIterator[tuple[CountingServer, CountingServer]]:
    one, two = CountingServer(), CountingServer()
    await one.start()
    await two.start()
    yield one, two
    await one.stop()
    await two.stop()


@pytest.fixture
async def pool() -> AsyncIterator[ConnectionPool]:
    pool = ConnectionPool(connections_max=4)
    yield pool
    await pool.aclose()


async def test_requests_one_after_the_other_share_a_connection(servers, pool):
    one, _ = servers
    for _ in range(20):
        assert (await pool.fetch("GET", one.url)).text == "done"
    assert one.opened == 1


async def test_no_more_connections_are_open_than_allowed(servers, pool):
    one, two = servers
    await asyncio.gather(*(pool.fetch("GET", server.url) for _ in range(20) for server in (one, two)))
    assert one.open_now + two.open_now <= 4


async def test_idle_connections_to_other_workers_are_closed_at_the_limit(servers, pool):
    one, two = servers
    await asyncio.gather(*(pool.fetch("GET", one.url) for _ in range(4)))
    assert one.open_now == 4
    await pool.fetch("GET", two.url)
    await one.until_open(0)
    assert two.open_now == 1


async def test_idle_connections_are_closed_in_time(servers):
    one, two = servers
    pool = ConnectionPool(connections_max=4, keepalive_seconds=0.01)
    await asyncio.gather(*(pool.fetch("GET", one.url) for _ in range(3)))
    async with asyncio.timeout(20):
        while one.open_now:
            await pool.fetch("GET", two.url)
    await pool.aclose()


async def test_closing_closes_connections_in_use_too(servers, pool):
    one, _ = servers
    await pool.fetch("GET", one.url)
    reply = await pool.open("GET", one.url)
    await pool.aclose()
    await one.until_open(0)
    await reply.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await pool.open("GET", one.url)


async def test_a_connection_that_the_server_closed_is_replaced(servers, pool):
    one, _ = servers
    await pool.fetch("GET", one.url)
    one.hang_up()
    await one.until_open(0)
    assert (await pool.fetch("GET", one.url)).text == "done"
    assert one.opened == 2


async def test_cancelling_a_queued_request_keeps_the_positions_of_the_others(servers):
    one, _ = servers
    pool = ConnectionPool(connections_max=1)
    holding = await pool.open("GET", one.url)
    waiting = asyncio.ensure_future(pool.open("GET", one.url))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await holding.aclose()
    assert (await pool.fetch("GET", one.url)).text == "done"
    await pool.aclose()


def test_the_default_limit_fits_the_processs_file_limit():
    assert 16 <= connections_allowed() <= 1000


async def test_a_request_cancelled_at_any_step_does_not_block_the_next(servers):
    server, _ = servers
    steps, finished = 0, False
    while not finished:
        pool = ConnectionPool()
        given_up = asyncio.create_task(pool.fetch("GET", server.url))
        for _ in range(steps):
            await asyncio.sleep(0)
        finished = given_up.done()
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        async with asyncio.timeout(10):  # expires if the next request waits for the locked connection
            assert (await pool.fetch("GET", server.url)).text == "done"
        await pool.aclose()
        steps += 1
    assert steps > 5, "it was cancelled on the way"
