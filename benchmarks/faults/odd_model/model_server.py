"""A model server with the faults of real ones: `POST /v1/completions` as SSE or JSON, and `GET /health`.

* The prompt `crash` prints a traceback and ends the process, as a failed assertion does.
* The prompt `slow` takes `SLOW_SECONDS` a token.
* A health probe ends every running answer early, and the answer looks complete, as llama.cpp's server can do.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

TOKEN_SECONDS = 0.02
SLOW_SECONDS = 0.25


class Server:
    """Counts the probes, so that a probe during an answer is noticed."""

    def __init__(self) -> None:
        self._probes = 0

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve the requests of one connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int((head.lower().partition(b"content-length: ")[2] or b"0").split(b"\r\n")[0])
                body = await reader.readexactly(length)
                if head.startswith(b"GET"):
                    self._probes += 1
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                else:
                    await self._complete(json.loads(body), writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _complete(self, asked: dict[str, object], writer: asyncio.StreamWriter) -> None:
        prompt, count, stream = (
            asked.get("prompt"),
            int(str(asked.get("max_tokens", 16))),
            asked.get("stream"),
        )
        if prompt == "crash":
            with Path("crashes").open("a") as file:  # noqa: ASYNC230 - the start script empties the log
                file.write("crash\n")
            print("Traceback (most recent call last):\nAssertionError: temperature", flush=True)
            os._exit(1)
        if stream:
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
        before, done = self._probes, 0
        while done < count and self._probes == before and not writer.is_closing():
            await asyncio.sleep(SLOW_SECONDS if prompt == "slow" else TOKEN_SECONDS)
            done += 1
            if stream:
                writer.write(b'15\r\ndata: {"text": "a"}\n\n\r\n')
                await writer.drain()
        if stream:
            writer.write(b"0\r\n\r\n")
            return
        answer = json.dumps({"usage": {"completion_tokens": done}}).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (len(answer), answer)
        )


async def main(port: int) -> None:
    """Listen, and print a line when ready."""
    server = await asyncio.start_server(Server().connection, "127.0.0.1", port)
    print("model ready", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main(int(os.environ["MODEL_PORT"])))
    except KeyboardInterrupt:
        sys.exit(0)
