"""The names under which the model server serves its models, so that the engine can list them."""

import asyncio
from collections.abc import Callable
from typing import Any

from stoker_wire.http1.client import fetch
from stoker_wire.http1.upstream_connection import UpstreamError
from stoker_wire.http1.upstream_pool import UpstreamPool
from stoker_wire.parsing.strict_json import NotJson, parse_answer

_PATH = "/v1/models"
_ANSWER_SECONDS_MAX = 5.0
_AGAIN_SECONDS = 60.0
"""Model servers load and unload adapters while they run."""
_NAMES_MAX = 256
_NAME_CHARS_MAX = 512


class ServedModels:
    """Asks the model server for `GET /v1/models`; servers without that call have no names."""

    def __init__(self, pool: UpstreamPool) -> None:
        self._pool = pool
        self.names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<ServedModels {', '.join(self.names) or 'not known'}>"

    async def watch(self, *, skip: Callable[[], bool] = lambda: False) -> None:
        """Ask again and again, until cancelled, except while `skip` is true: the call may wait for a running request."""
        while True:
            await asyncio.sleep(_AGAIN_SECONDS)
            if not skip():
                await self.ask()

    async def ask(self) -> None:
        """Ask once. A server that does not answer now keeps its names."""
        try:
            answer = await fetch(self._pool, "GET", _PATH, seconds_max=_ANSWER_SECONDS_MAX)
        except (UpstreamError, TimeoutError):
            return
        self.names = _names(answer.body) if answer.status == 200 else ()


def _names(body: bytes) -> tuple[str, ...]:
    try:
        models: Any = parse_answer(body)["data"]
        names = [model["id"] for model in models]
    except (NotJson, KeyError, TypeError):
        return ()
    sane = [name for name in names if isinstance(name, str) and 0 < len(name) <= _NAME_CHARS_MAX]
    return tuple(dict.fromkeys(sane))[:_NAMES_MAX]
