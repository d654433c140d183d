"""A model server that checks the model's name as vLLM does, behind a real PyWorker, behind the engine."""

import asyncio
import base64
import json
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from stoker_pyworker import BenchmarkConfig, HandlerConfig, WorkerConfig
from stoker_pyworker.environment import Environment
from stoker_pyworker.worker import WorkerRuntime
from stoker_wire.http1.limits import Limits
from stoker_wire.workload import FieldWorkload
from tests.engine.conftest import EndpointDouble, Stage
from tests.engine.fake_endpoint_workflow import until
from tests.environments import python_of

MODEL = "Qwen/Qwen3-8B"
SPEECH = bytes(range(256)) * 400
USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ModelServer:
    """Chat, embeddings, audio, images and moderations. `answer` replaces the next answers to chat calls.

    A prompt that begins with `slow` is answered for as long as the client stays; `left` then has the prompt.
    """

    def __init__(self, name: str = MODEL) -> None:
        self.name = name
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.left: set[str] = set()
        self.answer: Handler | None = None
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_route("*", "/{path:.+}", self._handle)
        self.server = TestServer(app)

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": self.name, "object": "model"}]})

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if b"benchmark" in body:
            return web.json_response({})
        self.requests.append(request)
        self.bodies.append(body)
        path = request.path
        if path.startswith("/v1/audio/transcriptions"):
            boundary = request.headers["Content-Type"].partition("boundary=")[2].encode()
            parts = [part.partition(b"\r\n\r\n") for part in body.split(b"--" + boundary)]
            form = {_field_name(head): value.removesuffix(b"\r\n") for head, _, value in parts[1:-1]}
            answer = {"text": f"{len(form['file'])} bytes"}
            return self._checked(form["model"].decode()) or web.json_response(answer)
        payload = json.loads(body)
        if (refused := self._checked(payload.get("model"))) is not None:
            return refused
        if self.answer is not None:
            return await self.answer(request)
        return self._other(path, payload) or await self._complete(request, payload)

    def _other(self, path: str, payload: dict[str, Any]) -> web.Response | None:
        """The answer to a call that is no completion."""
        match path:
            case "/v1/audio/speech":
                return web.Response(body=SPEECH, content_type="audio/mpeg")
            case "/v1/embeddings":
                vector: Any = [0.5, 0.25]
                if payload.get("encoding_format") == "base64":
                    vector = base64.b64encode(struct.pack("<2f", *vector)).decode()
                data = [{"object": "embedding", "index": 0, "embedding": vector}]
                usage = {"prompt_tokens": 2, "total_tokens": 2}
                return web.json_response({"object": "list", "data": data, "model": self.name, "usage": usage})
            case "/v1/images/generations":
                return web.json_response({"created": 1, "data": [{"b64_json": "aGk="}]})
            case "/v1/moderations":
                return web.json_response({"id": "m", "model": self.name, "results": []})
            case "/v1/messages" | "/api/chat":
                return web.json_response({"role": "assistant", "path": path})
        return None

    async def _complete(self, request: web.Request, payload: dict[str, Any]) -> web.StreamResponse:
        prompt = _prompt_of(payload)
        if prompt.startswith("slow"):
            return await self._answer_until_left(request, prompt, is_stream=bool(payload.get("stream")))
        if payload.get("stream"):
            return await self._stream(request, payload)
        answer = (_text_completion if request.path == "/v1/completions" else _completion)(self.name, "hello")
        if payload.get("tools"):
            answer["choices"] = [_tool_choice(payload["tools"][0]["function"]["name"])]
        return web.json_response(answer, headers={"X-Request-Id": "r-1"})

    def _checked(self, name: Any) -> web.Response | None:
        if name == self.name:
            return None
        error = {"message": f"The model `{name}` does not exist.", "type": "NotFoundError", "code": 404}
        return web.json_response({"error": error}, status=404)

    async def _stream(self, request: web.Request, payload: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        is_chat = request.path != "/v1/completions"
        for word in ("hel", "lo"):
            await response.write(_event(self.name, word, is_chat=is_chat))
        if (payload.get("stream_options") or {}).get("include_usage"):
            await response.write(_event(self.name, None, is_chat=is_chat))
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _answer_until_left(
        self, request: web.Request, prompt: str, *, is_stream: bool
    ) -> web.StreamResponse:
        """An event every few milliseconds, or none at all for a call without a stream, until the client leaves."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            if is_stream:
                await response.prepare(request)
            while True:
                if is_stream:
                    await response.write(_event(self.name, "word ", is_chat=True))
                await asyncio.sleep(0.02)
        finally:  # cancelled, or the connection is broken
            self.left.add(prompt)


def _prompt_of(payload: dict[str, Any]) -> str:
    messages = payload.get("messages")
    prompt = messages[-1]["content"] if messages else payload.get("prompt", "")
    return prompt if isinstance(prompt, str) else ""


def _event(name: str, word: str | None, *, is_chat: bool) -> bytes:
    """One event of a stream; without a word, the event that has the usage."""
    event: dict[str, Any] = {"id": "c", "created": 1, "model": name, "choices": []}
    event["object"] = "chat.completion.chunk" if is_chat else "text_completion"
    if word is None:
        event["usage"] = USAGE
    elif is_chat:
        delta = {"role": "assistant", "content": word}
        event["choices"] = [{"index": 0, "delta": delta, "finish_reason": None}]
    else:
        event["choices"] = [{"index": 0, "text": word, "finish_reason": None}]
    return f"data: {json.dumps(event)}\n\n".encode()


def _field_name(head: bytes) -> str:
    return head.decode().partition('name="')[2].partition('"')[0]


def _completion(name: str, text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": name,
        "choices": [choice],
        "usage": USAGE,
    }


def _text_completion(name: str, text: str) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}
    return _completion(name, text) | {"object": "text_completion", "choices": [choice]}


def _tool_choice(name: str) -> dict[str, Any]:
    call = {"id": "t", "type": "function", "function": {"name": name, "arguments": '{"city": "Bonn"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"index": 0, "message": message, "finish_reason": "tool_calls"}


PATHS = (
    "/v1/completions",
    "/v1/embeddings",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/images/generations",
    "/v1/moderations",
    "/v1/messages",
    "/api/chat",
)


def _handlers(**chat: Any) -> list[HandlerConfig]:
    first = HandlerConfig(
        route="/v1/chat/completions",
        allow_parallel_requests=True,
        benchmark_config=BenchmarkConfig(dataset=[{"benchmark": 1}], runs=1, do_warmup=False),
        **({"workload_calculator": FieldWorkload(fields=("max_tokens",), default=100)} | chat),
    )
    return [first, *(HandlerConfig(route=path, allow_parallel_requests=True) for path in PATHS)]


@asynccontextmanager
async def pyworker(
    stage: Stage, endpoint: EndpointDouble, model: ModelServer, folder: Path, **options: Any
) -> AsyncIterator[WorkerRuntime]:
    """A real worker before the model server. `environment` and `chat` change its environment and its first handler."""
    changes = options.pop("environment", {})
    double = endpoint.worker(options.pop("launch_id", "aaaaaaaaaaaa"), options.pop("instance_id", 101))
    await model.server.start_server()
    config = WorkerConfig(
        model_server_url="http://127.0.0.1",
        model_server_port=model.server.port,
        model_healthcheck_url=options.pop("health", "/health"),
        handlers=options.pop("handlers", None) or _handlers(**options.pop("chat", {})),
        **options.pop("config", {}),
    )
    environment = Environment(
        **{
            "container_id": double.instance_id,
            "worker_port": 0,
            "report_addresses": (stage.server.url,),
            "master_token": double.token,
            "launch_id": double.launch_id,
            "drain_seconds_max": 5,
        }
        | changes
    )
    host = options.pop("host", "127.0.0.1")
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    life = WorkerRuntime(config, environment, Limits(body_bytes_max=config.body_bytes_max), directory=folder)
    task = asyncio.ensure_future(life.serve(host))
    try:
        known = stage.server.engine.directory.named(endpoint.name)
        members = [*known.memo.model_dump(mode="json")["members"], double.member()]
        await endpoint.script(groups=[1], members=members)
        await until(
            lambda: any(each.launch_id == double.launch_id for each in known.candidates),
            "the worker is ready",
        )
        yield life
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await model.server.close()


async def run_client(stage: Stage, endpoint: EndpointDouble, script: str) -> Any:
    """Run Python with the `openai` package of its own environment; `client` is ready, and `show(value)` is returned."""
    prelude = (
        "import json, sys, openai\n"
        f"client = openai.OpenAI(base_url={stage.server.url + '/openai/' + endpoint.name + '/v1'!r}, "
        f"api_key={endpoint.key!r}, max_retries=0, timeout=60)\n"
        "def show(value):\n    print('SHOWN ' + json.dumps(value))\n"
    )
    python = await asyncio.to_thread(python_of, "clients")
    process = await asyncio.create_subprocess_exec(
        python, "-c", prelude + script, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        out, error = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    shown = [line[6:] for line in out.decode().splitlines() if line.startswith("SHOWN ")]
    assert shown, (out.decode(), error.decode())
    return json.loads(shown[-1])
