"""A typical model server: `POST /v1/completions` (as SSE with `"stream": true`) and `GET /health`.

It needs only NumPy and the standard library, and starts quickly on a tenth of a core. It listens on `MODEL_PORT`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

# One thread, so that the speed does not depend on the load of other cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from language import Generation, TextModel  # NumPy reads the thread counts when it is imported

HEAD_BYTES_MAX = 32 * 1024
BODY_BYTES_MAX = 1024 * 1024
TOKENS_MAX = 4096


class BadRequest(Exception):
    """The request is invalid; the message names the error."""


class Completion:
    """A validated request."""

    def __init__(self, body: bytes) -> None:
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError) as fault:
            raise BadRequest(f"the body is not JSON: {fault}") from None
        if not isinstance(asked, dict):
            raise BadRequest("expected a JSON object")
        self.prompt = asked.get("prompt", "")
        self.max_tokens = asked.get("max_tokens", 16)
        self.stream = asked.get("stream", False) is True
        self.temperature = asked.get("temperature", 1.0)
        self.seed = asked.get("seed", 0)
        if not isinstance(self.prompt, str):
            raise BadRequest("prompt: expected a string")
        if not isinstance(self.max_tokens, int) or not 1 <= self.max_tokens <= TOKENS_MAX:
            raise BadRequest(f"max_tokens: expected an integer from 1 to {TOKENS_MAX}")
        if not isinstance(self.temperature, int | float) or not 0 <= self.temperature <= 2:
            raise BadRequest("temperature: expected a number from 0 to 2")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise BadRequest("seed: expected an integer of 0 or more")


class Server:
    """Generates one token at a time, so that several requests can run concurrently."""

    def __init__(self, model: TextModel) -> None:
        self._model = model
        self._served = 0

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve the requests of one connection."""
        try:
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        method, _, rest = first.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = fields.get("content-length", "0")
        if not length.isdecimal() or int(length) > BODY_BYTES_MAX or "transfer-encoding" in fields:
            _answer(writer, 413, {"error": "expected a body with a Content-Length of at most 1 MiB"})
            return False
        body = await reader.readexactly(int(length))
        if (method, path) == ("GET", "/health"):
            _answer(writer, 200, {"status": "ok", "served": self._served})
        elif (method, path) == ("POST", "/v1/completions"):
            try:
                completion = Completion(body)
            except BadRequest as fault:
                _answer(writer, 400, {"error": {"message": str(fault), "type": "invalid_request_error"}})
            else:
                await self._complete(completion, writer)
        else:
            _answer(writer, 404, {"error": "this server has only POST /v1/completions and GET /health"})
        await writer.drain()
        return fields.get("connection", "").lower() != "close" and not writer.is_closing()

    async def _complete(self, asked: Completion, writer: asyncio.StreamWriter) -> None:
        self._served += 1
        name = f"cmpl-{self._served}"
        generation = Generation(self._model, asked.prompt, temperature=asked.temperature, seed=asked.seed)
        if asked.stream:
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
                b"transfer-encoding: chunked\r\n\r\n"
            )
        tokens = []
        for number in range(asked.max_tokens):
            # Run other requests between two tokens, and detect a client that has disconnected.
            await asyncio.sleep(0)
            if writer.is_closing():
                return
            tokens.append(generation.token())
            if asked.stream:
                last = number == asked.max_tokens - 1
                _chunk(writer, _completion(name, tokens[-1], "length" if last else None))
                await writer.drain()
        if asked.stream:
            writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
            return
        usage = {"completion_tokens": len(tokens), "prompt_tokens": len(asked.prompt) // 4}
        _answer(writer, 200, _completion(name, "".join(tokens), "length") | {"usage": usage})


def _completion(name: str, text: str, finish: str | None) -> dict[str, object]:
    choice = {"index": 0, "text": text, "finish_reason": finish}
    return {"id": name, "object": "text_completion", "created": int(time.time()), "choices": [choice]}


def _chunk(writer: asyncio.StreamWriter, event: dict[str, object]) -> None:
    data = b"data: " + json.dumps(event).encode() + b"\n\n"
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 413: "Content Too Large"}


def _answer(writer: asyncio.StreamWriter, status: int, body: dict[str, object]) -> None:
    data = json.dumps(body).encode()
    writer.write(
        f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(data)}\r\n\r\n".encode()
        + data
    )


async def serve(port: int) -> None:
    """Load the model, listen, and print a line when ready."""
    started = time.perf_counter()
    corpus = Path(__file__).with_name("corpus.txt").read_text(encoding="utf-8")
    model, cached = TextModel.load(corpus, Path.cwd())
    server = await asyncio.start_server(Server(model).connection, "127.0.0.1", port, limit=HEAD_BYTES_MAX)
    source = "from disk" if cached else "trained"
    port = server.sockets[0].getsockname()[1]
    print(f"model ready ({source}, {time.perf_counter() - started:.2f} s) on port {port}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(serve(int(os.environ.get("MODEL_PORT", "8000"))))
    except KeyboardInterrupt:
        sys.exit(0)
    except (OSError, ValueError) as fault:
        print(f"model failed: {fault}", flush=True)
        sys.exit(1)
