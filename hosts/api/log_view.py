"""Access to an instance's log through a random address that expires."""

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stoker_wire.errors.problem import Problem
from stoker_wire.parsing.numbers import read_whole

GRANT_SECONDS = 300.0
GRANTS_MAX = 1000
TAIL_LINES = 1000
READ_BYTES_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class _Grant:
    instance_id: int
    tail: int
    contains: str
    until: float


class LogView:
    """Issues tokens for logs, and reads the logs."""

    def __init__(self) -> None:
        self._grants: dict[str, _Grant] = {}

    def grant(self, instance_id: int, tail: Any, contains: str) -> str:
        """A token for reading the last `tail` lines. Raises Problem."""
        lines = TAIL_LINES if tail is None else read_whole(str(tail))
        if lines is None or not 1 <= lines <= 100_000:
            raise Problem(400, "invalid_args", "tail: expected a number of lines from 1 to 100000")
        now = time.monotonic()
        self._grants = {token: grant for token, grant in self._grants.items() if grant.until > now}
        while len(self._grants) >= GRANTS_MAX:
            self._grants.pop(next(iter(self._grants)))
        token = secrets.token_urlsafe(24)
        self._grants[token] = _Grant(instance_id, lines, contains, now + GRANT_SECONDS)
        return token

    async def read(self, token: str, home: Callable[[int], Path]) -> bytes:
        """The lines that the token grants. Raises Problem 404 if the token is unknown or expired."""
        grant = self._grants.get(token)
        if grant is None or grant.until < time.monotonic():
            raise Problem(404, "no_such_log", "this log address is unknown or expired: request a new one")
        return await asyncio.to_thread(_tail, home(grant.instance_id) / "log", grant.tail, grant.contains)


def _tail(path: Path, lines: int, contains: str) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - READ_BYTES_MAX))
            data = file.read()
    except FileNotFoundError:
        return b""
    found = data.splitlines(keepends=True)
    if size > READ_BYTES_MAX:
        found = found[1:]
    needle = contains.encode()
    return b"".join([line for line in found if needle in line][-lines:])
