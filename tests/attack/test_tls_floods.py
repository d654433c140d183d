"""Unfinished TLS handshakes at a worker's port count towards the limits and do not block other clients."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable

import pytest

from stoker_wire.http1.limits import Limits
from stoker_wire.http1.server import HttpServer
from tests.attack.conftest import read_all, until
from tests.pyworker.test_processes import self_signed

MOST = 20
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n"
HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01\x00"


class Guarded:
    """A worker's TLS server and its clients."""

    def __init__(self, server: HttpServer, port: int, trust: ssl.SSLContext) -> None:
        self.server = server
        self.port = port
        self._trust = trust

    async def silent(self, sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client that begins a handshake and then sends nothing."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        return reader, writer

    async def ask(self) -> bytes:
        """The response for a regular client."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self._trust)
        writer.write(REQUEST)
        try:
            return await read_all(reader)
        finally:
            writer.close()


Starter = Callable[..., "contextlib.AbstractAsyncContextManager[Guarded]"]


@pytest.fixture
def guarded(tmp_path) -> Starter:
    certificate, key = self_signed(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    trust = ssl.create_default_context(cafile=str(certificate))

    @contextlib.asynccontextmanager
    async def start(**limits) -> AsyncIterator[Guarded]:
        server = HttpServer(lambda _, cycle: cycle.respond(200, b"{}"), Limits(**limits))
        port = await server.listen("127.0.0.1", 0, tls=tls)
        try:
            yield Guarded(server, port, trust)
        finally:
            await server.close(0.0)

    return start


@pytest.mark.parametrize("sent", [b"", HALF_A_HELLO], ids=["silent", "half a hello"])
async def test_handshakes_that_do_not_end_are_bounded_and_the_oldest_makes_room(guarded, sent):
    async with guarded(handshakes_max=MOST, head_seconds_max=600.0) as worker:
        peers = [await worker.silent(sent) for _ in range(3 * MOST)]
        closed = [asyncio.ensure_future(read_all(reader)) for reader, _ in peers[: 2 * MOST]]
        assert set(await asyncio.gather(*closed)) == {b""}, "those that came first are closed"
        assert (await worker.ask()).startswith(b"HTTP/1.1 200"), "who says hello is served meanwhile"
        assert worker.server.handshakes <= MOST
        for _, writer in peers:
            writer.close()
        await until(lambda: worker.server.handshakes == 0, "who leaves is forgotten")


async def test_a_burst_that_is_accepted_in_one_go_is_bounded_too(guarded):
    async with guarded(handshakes_max=MOST, head_seconds_max=600.0) as worker:
        with contextlib.ExitStack() as held:
            peers = [
                held.enter_context(socket.create_connection(("127.0.0.1", worker.port)))
                for _ in range(10 * MOST)
            ]
            await until(lambda: worker.server.handshakes == MOST, "the burst is accepted")
            for peer in peers[: 9 * MOST]:
                peer.setblocking(False)
                assert await asyncio.get_running_loop().sock_recv(peer, 1) == b"", "the first are closed"
            assert worker.server.handshakes == MOST


async def test_a_handshake_that_takes_too_long_is_cut_and_forgotten(guarded):
    async with guarded(head_seconds_max=0.2) as worker:
        reader, writer = await worker.silent(HALF_A_HELLO)
        assert await read_all(reader) == b""
        await until(lambda: worker.server.handshakes == 0, "it is forgotten")
        writer.close()


async def test_bytes_that_are_not_tls_close_the_connection(guarded):
    async with guarded(head_seconds_max=600.0) as worker:
        reader, writer = await worker.silent(REQUEST)
        assert b"HTTP/1.1 200" not in await read_all(reader)
        await until(lambda: worker.server.handshakes == 0, "it is forgotten")
        writer.close()


async def test_a_server_that_closes_does_not_wait_for_handshakes(guarded):
    async with guarded(head_seconds_max=600.0) as worker:
        reader, writer = await worker.silent(HALF_A_HELLO)
        await until(lambda: worker.server.handshakes == 1, "it has begun")
        await worker.server.close(600.0)
        assert await read_all(reader) == b""
        writer.close()


class Slowed:
    """A client that controls which TLS records it sends together."""

    def __init__(self, worker: Guarded, raw: socket.socket) -> None:
        self._raw = raw
        self._said, self._heard = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = worker._trust.wrap_bio(self._heard, self._said, server_hostname="127.0.0.1")
        raw.setblocking(False)

    async def handshake(self) -> None:
        """Run the handshake up to the client's last message, without sending it."""
        while True:
            try:
                return self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.send()
                self._heard.write(await self.receive())

    async def send(self, data: bytes = b"") -> None:
        """Send the pending bytes together with this data."""
        if data:
            self._tls.write(data)
        await asyncio.get_running_loop().sock_sendall(self._raw, self._said.read())

    async def receive(self) -> bytes:
        """Receive encrypted bytes."""
        return await asyncio.get_running_loop().sock_recv(self._raw, 65536)

    async def read(self) -> bytes:
        """The first decrypted bytes of a response."""
        while True:
            self._heard.write(await self.receive())
            with contextlib.suppress(ssl.SSLWantReadError):
                return self._tls.read(65536)


async def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(guarded):
    async with guarded() as worker:
        with socket.create_connection(("127.0.0.1", worker.port)) as raw:
            client = Slowed(worker, raw)
            await client.handshake()
            await client.send(REQUEST)
            assert (await client.read()).startswith(b"HTTP/1.1 200")


async def test_a_client_that_does_not_close_its_side_of_tls_is_not_waited_for_long(guarded):
    async with guarded(linger_seconds=0.1) as worker:
        with socket.create_connection(("127.0.0.1", worker.port)) as raw:
            client = Slowed(worker, raw)
            await client.handshake()
            await client.send(REQUEST)
            async with asyncio.timeout(15):  # by itself TLS would wait for 30 s
                while await client.receive():
                    pass
            await until(lambda: worker.server.connections == 0, "its connection is forgotten")


@pytest.mark.parametrize("clients", [1, 50])
async def test_honest_clients_that_come_all_at_once_are_all_served(guarded, clients):
    async with guarded() as worker:
        answers = await asyncio.gather(*(worker.ask() for _ in range(clients)))
        assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
        assert worker.server.handshakes == 0
