"""A model server that answers at once, so that the proxy is measured. Prints its port."""

import asyncio
import contextlib
from typing import cast

import httptools
import uvloop

ANSWER = b'{"id":"cmpl-1","object":"text_completion","choices":[{"index":0,"text":"steam","finish_reason":"stop"}]}'
WHOLE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER) + ANSWER
)
EVENT = b'data: {"index":0,"text":"steam"}\n\n'
EVENTS = 4
EVENT_GAP_SECONDS = 0.003


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM_START = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    + _chunk(EVENT)
)


class Model(asyncio.Protocol):
    """Answers at once; on `/stream` with an event now and some more a little later."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpRequestParser(self)
        self.path = b""

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Which path."""
        self.path = url

    def on_message_complete(self) -> None:
        """Answer."""
        if not self.path.startswith(b"/stream"):
            self.transport.write(WHOLE)
            return
        self.transport.write(STREAM_START)
        asyncio.get_running_loop().call_later(EVENT_GAP_SECONDS, self.more, EVENTS - 1)

    def more(self, left: int) -> None:
        """The next event, and the end after the last."""
        self.transport.write(_chunk(EVENT) if left > 1 else _chunk(EVENT) + b"0\r\n\r\n")
        if left > 1:
            asyncio.get_running_loop().call_later(EVENT_GAP_SECONDS, self.more, left - 1)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Model, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main())
