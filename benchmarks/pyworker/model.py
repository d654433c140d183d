"""A model server that answers at once, so that the proxy is measured. Listens on PORT, or on any port, and prints it."""

import asyncio
import contextlib
import os
from typing import cast

import httptools
import uvloop

ANSWER = b'{"id":"cmpl-1","object":"text_completion","choices":[{"index":0,"text":"steam","finish_reason":"stop"}]}'
WHOLE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER) + ANSWER
)
CHAT = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"steam"}}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
)
WHOLE_CHAT = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(CHAT) + CHAT
)
CHAT_EVENT = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"bench","choices":[{"index":0,'
    b'"delta":{"role":"assistant","content":"steam "},"finish_reason":null}]}\n\n'
)
LONG_EVENTS, LONG_GAP_SECONDS = 61, 1.0
"""A stream whose prompt is `long`: a minute."""
EVENT = b'data: {"index":0,"text":"steam"}\n\n'
EVENTS = 4
EVENT_GAP_SECONDS = 0.003


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Model(asyncio.Protocol):
    """Answers at once; a stream with an event now and some more a little later."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpRequestParser(self)
        self.path = self.body = b""

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Which path."""
        self.path, self.body = url, b""

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self.body += data

    def on_message_complete(self) -> None:
        """Answer."""
        if self.path.startswith(b"/stream"):
            self.stream(EVENT, EVENTS, EVENT_GAP_SECONDS)
        elif not self.path.startswith(b"/v1/chat"):
            self.transport.write(WHOLE)
        elif b'"stream"' not in self.body:
            self.transport.write(WHOLE_CHAT)
        elif b'"long"' in self.body:
            self.stream(CHAT_EVENT, LONG_EVENTS, LONG_GAP_SECONDS)
        else:
            self.stream(CHAT_EVENT, EVENTS, EVENT_GAP_SECONDS, b"data: [DONE]\n\n")

    def stream(self, event: bytes, count: int, gap: float, last: bytes = b"") -> None:
        """Sends the first event and plans the others."""
        self.transport.write(STREAM_HEAD + _chunk(event))
        asyncio.get_running_loop().call_later(gap, self.more, event, count - 1, gap, last)

    def more(self, event: bytes, left: int, gap: float, last: bytes) -> None:
        """The next event, and the end after the last."""
        end = _chunk(event + last) + b"0\r\n\r\n"
        self.transport.write(_chunk(event) if left > 1 else end)
        if left > 1:
            asyncio.get_running_loop().call_later(gap, self.more, event, left - 1, gap, last)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Model, "127.0.0.1", int(os.environ.get("PORT", "0")), backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main())
