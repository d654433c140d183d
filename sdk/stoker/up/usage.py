"""The lines to paste: the same request with curl, OpenAI's package and the SDK."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from stoker_wire.presets import PresetSummary

_CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 100}
_BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": _CHAT,
    "/v1/embeddings": {"input": "hello"},
    "/generate": {"inputs": "hello"},
    "/api/prompt": {"prompt": {}},
}
_COST = 150
"""Covers 100 tokens of output and a short prompt by the presets' workload rules."""
_AUDIO = "/v1/audio/transcriptions"


def usage_lines(
    preset: PresetSummary,
    *,
    engine_url: str,
    endpoint: str,
    model: str = "",
    routes: Sequence[str] = (),
    key: str = "",
) -> list[str]:
    """Lines for a shell and for Python. The key is read from STOKER_API_KEY, so that none is printed.

    Args:
        model: the name under which the model server knows the model. The SDK sends the body to it as it is, while the
            engine's model API takes the endpoint's name too.
        routes: of the worker beside those of the preset.
        key: what sets STOKER_API_KEY in the shell, such as `$(stokerd key)`; empty: the shell has it.
    """
    route = [*preset.routes, *routes, "/"][0]
    base = f"{engine_url}/openai/{quote(endpoint)}"
    lines = [f"export STOKER_URL={shlex.quote(engine_url)}" + (f" STOKER_API_KEY={key}" if key else "")]
    lines += [f"export OPENAI_BASE_URL={shlex.quote(base)}/v1 OPENAI_API_KEY=$STOKER_API_KEY", ""]
    url = shlex.quote(f"{base}{route}")
    auth = '-H "Authorization: Bearer $STOKER_API_KEY"'
    openai = ["# Python, after: pip install openai", "from openai import OpenAI"]
    if route == _AUDIO:
        form = shlex.join(["-F", "file=@speech.wav", "-F", f"model={endpoint}"])
        lines += ["# curl", f"curl {url} {auth} {form}", "", *openai]
        lines += [
            f'print(OpenAI().audio.transcriptions.create(model="{endpoint}", file=open("speech.wav", "rb")).text)'
        ]
        return lines
    text = json.dumps(_body(route, endpoint))
    lines += [
        "# curl",
        f"curl {url} {auth} -H 'Content-Type: application/json' -d {shlex.quote(text)}",
        "",
    ]
    if route == "/v1/chat/completions":
        call = f'chat.completions.create(model="{endpoint}", messages={_CHAT["messages"]}, max_tokens=100)'
        lines += [*openai, f"print(OpenAI().{call}.choices[0].message.content)", ""]
    elif route == "/v1/embeddings":
        call = f'embeddings.create(model="{endpoint}", input="hello")'
        lines += [*openai, f"print(OpenAI().{call}.data[0].embedding)", ""]
    path, body = json.dumps(route, ensure_ascii=False), _body(route, model or endpoint)
    lines += [
        "# Python, after: pip install stoker",
        "import stoker",
        "with stoker.SyncServerless() as client:",
        f'    answer = client.get_endpoint("{endpoint}").request({path}, {body}, cost={_COST})',
        "    print(answer.json())",
    ]
    return lines


def _body(route: str, model: str) -> dict[str, Any]:
    named = {"model": model} if route.startswith("/v1/") else {}
    return named | _BODIES.get(route, {})
