"""ComfyUI: `python main.py`. Its own clients use a job; `/api/prompt` answers one call with the images."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from stoker_pyworker.config import JsonObject
from stoker_pyworker.presets.base.preset import Preset, PresetRoute
from stoker_pyworker.presets.base.settings import PresetSettings
from stoker_pyworker.proxy.hooks import Response, json_response
from stoker_wire.http1.client import fetch
from stoker_wire.http1.upstream_pool import UpstreamPool
from stoker_wire.parsing.numbers import finite
from stoker_wire.workload import ConstantWorkload

_POLL_SECONDS = 0.25
_ANSWER_SECONDS_MAX = 60.0
_PIXELS, _STEPS = 1024 * 1024, 20
"""Of a workflow that names neither."""


def command(settings: PresetSettings) -> list[str]:
    """The server on the loopback address, started in ComfyUI's folder."""
    return ["python3", "main.py", "--listen", "127.0.0.1", "--port", str(settings.port)]


def workload(payload: JsonObject) -> float:
    """Megapixels times steps: the largest latent image and the sum of all samplers' steps in the workflow."""
    nodes = payload.get("prompt")
    inputs = (
        [node.get("inputs") for node in nodes.values() if isinstance(node, dict)]
        if isinstance(nodes, dict)
        else []
    )
    pixels, steps = 0.0, 0.0
    for each in inputs:
        if not isinstance(each, dict):
            continue
        width, height, count = (_number(each.get(name)) for name in ("width", "height", "batch_size"))
        frames = _number(each.get("length")) or 1.0
        pixels = max(pixels, width * height * max(count, 1.0) * frames)
        steps += _number(each.get("steps"))
    return (pixels or _PIXELS) / 1e6 * (steps or _STEPS)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return max(finite(value) or 0.0, 0.0)


def responder(settings: PresetSettings) -> Callable[[Any, Any], Awaitable[Response]]:
    """The hook that turns `{"prompt_id": …}` into the finished workflow's outputs and images."""
    pool: UpstreamPool | None = None

    async def call(method: str, path: str, body: Any = None) -> bytes:
        nonlocal pool
        pool = pool or UpstreamPool(f"http://127.0.0.1:{settings.port}", connections_max=8)
        encoded = b"" if body is None else msgspec.json.encode(body)
        return (await fetch(pool, method, path, encoded, seconds_max=_ANSWER_SECONDS_MAX)).body

    async def respond(_request: Any, model: Any) -> Response:
        body = await model.read()
        if model.status != 200:
            return Response(body=body, status=model.status, content_type=model.content_type)
        prompt_id = str(msgspec.json.decode(body)["prompt_id"])
        finished = False
        try:
            while True:
                history = msgspec.json.decode(await call("GET", f"/history/{quote(prompt_id, safe='')}"))
                if prompt_id in history:
                    finished = True
                    break
                await asyncio.sleep(_POLL_SECONDS)
            entry = history[prompt_id]
            images = [await image(each) for each in _files(entry.get("outputs", {}))]
        finally:
            if not finished:
                # The client has gone: stop its workflow, so that the next one starts.
                stop = asyncio.gather(
                    call("POST", "/queue", {"delete": [prompt_id]}), call("POST", "/interrupt", {})
                )
                await asyncio.shield(asyncio.wait([stop], timeout=1.0))
        status = entry.get("status", {})
        failed = status.get("status_str") == "error"
        answer = {
            "prompt_id": prompt_id,
            "status": status,
            "outputs": entry.get("outputs", {}),
            "images": images,
        }
        return json_response(answer, status=500 if failed else 200)

    async def image(file: Mapping[str, Any]) -> dict[str, str]:
        query = urlencode({name: file.get(name, "") for name in ("filename", "subfolder", "type")})
        data = await call("GET", f"/view?{query}")
        return {"filename": str(file.get("filename", "")), "data": base64.b64encode(data).decode()}

    return respond


def _files(outputs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The files of all nodes that are results rather than previews."""
    return [
        file
        for node in outputs.values()
        for kind in ("images", "gifs", "audio")
        for file in node.get(kind, ())
        if file.get("type") == "output"
    ]


PRESET = Preset(
    name="comfyui",
    command=command,
    program_words=2,
    model="",
    health_path="/queue",  # answered while a workflow runs
    ready_lines=("To see the GUI go to:",),
    routes=(
        # ComfyUI serves every path with the prefix /api too, so the two ways do not get in each other's way.
        PresetRoute(path="/api/prompt", rule=workload, parallel=False, responder=responder),
        PresetRoute(path="/prompt", rule=workload, in_job=True),
        PresetRoute(path="/ws", rule=None, websocket=True, in_job=True),
        PresetRoute(path="/history/{id}", rule=None, methods=("GET",), in_job=True),
        PresetRoute(path="/view", rule=None, methods=("GET",), in_job=True),
        PresetRoute(path="/upload/image", rule=ConstantWorkload(load=0.0), in_job=True),
    ),
    perf=10.0,
)
