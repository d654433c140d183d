"""The lines to paste: the same request with curl, OpenAI's package and the SDK."""

from __future__ import annotations

import json
import shlex
from typing import Any
from urllib.parse import quote

from stoker_wire.presets import PresetSummary

_CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 100}
_BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": _CHAT,
    "/v1/embeddings": {"input": "hello"},
    "/generate": {"inputs": "hello"},
    "/prompt": {"prompt": {}},
}
_COST = 150
"""Covers 100 tokens of output and a short prompt by the presets' workload rules."""
_AUDIO = "/v1/audio/transcriptions"


def usage_lines(
    preset: PresetSummary, *, engine_url: str, endpoint: str, model: str = "", has_key: bool = True
) -> list[str]:
    """Lines for a shell and for Python. The key is read from STOKER_API_KEY, so that none is printed.

    Args:
        model: the name that the model server knows. The engine's OpenAI API knows the endpoint's name as well.
        has_key: whether the shell has STOKER_API_KEY; without it the first line sets it.
    """
    route = preset.routes[0] if preset.routes else "/"
    base = f"{engine_url}/openai/{quote(endpoint)}"
    lines = [] if has_key else ["export STOKER_API_KEY=$(stokerd key)"]
    lines += [f"export OPENAI_BASE_URL={base}/v1 OPENAI_API_KEY=$STOKER_API_KEY", ""]
    auth = '-H "Authorization: Bearer $STOKER_API_KEY"'
    if route == _AUDIO:
        lines += ["# curl", f"curl {base}{route} {auth} -F file=@speech.wav -F model={endpoint}"]
        lines += ["", "# openai", "from openai import OpenAI"]
        lines += [
            f'OpenAI().audio.transcriptions.create(model="{endpoint}", file=open("speech.wav", "rb")).text'
        ]
        return lines
    body = _body(route, endpoint)
    lines += [
        "# curl",
        f"curl {base}{route} {auth} -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}",
        "",
    ]
    if route == "/v1/chat/completions":
        lines += ["# openai", "from openai import OpenAI"]
        lines += [
            f'OpenAI().chat.completions.create(model="{endpoint}", messages={_CHAT["messages"]}, max_tokens=100)',
            "",
        ]
    elif route == "/v1/embeddings":
        lines += ["# openai", "from openai import OpenAI"]
        lines += [f'OpenAI().embeddings.create(model="{endpoint}", input="hello").data[0].embedding', ""]
    lines += [
        "# stoker",
        "import stoker",
        "with stoker.SyncServerless() as client:",
        f'    answer = client.get_endpoint("{endpoint}").request("{route}", {_body(route, model or endpoint)}, cost={_COST})',
        "    print(answer.json())",
    ]
    return lines


def _body(route: str, model: str) -> dict[str, Any]:
    named = {"model": model} if route.startswith("/v1/") else {}
    return named | _BODIES.get(route, {})
