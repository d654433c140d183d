"""Calls that are answered later."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from engine.api.problems import problem_of
from stoker_wire.http1.messages import Header
from stoker_wire.http1.request import Request
from stoker_wire.http1.response_cycle import ResponseCycle

Call = Callable[[Request, ResponseCycle], None]
"""A call that is answered without aiohttp."""

_encode = msgspec.json.Encoder().encode


def respond_later(
    cycle: ResponseCycle,
    work: Coroutine[Any, Any, Any],
    *,
    status: int = 200,
    headers: tuple[Header, ...] = (),
) -> None:
    """Answer with the JSON value that the work returns, or with the problem that it raises.

    The work is cancelled when the client disconnects.
    """
    pending = _Pending(cycle, status, headers)
    cycle.listener = pending
    pending.task = asyncio.get_running_loop().create_task(pending.run(work))


class _Pending:
    __slots__ = ("_cycle", "_headers", "_status", "task")

    def __init__(self, cycle: ResponseCycle, status: int, headers: tuple[Header, ...]) -> None:
        self._cycle = cycle
        self._status = status
        self._headers = headers
        self.task: asyncio.Task[None]

    async def run(self, work: Coroutine[Any, Any, Any]) -> None:
        cycle = self._cycle
        try:
            value = await work
        except Exception as fault:  # noqa: BLE001 - every fault has a problem
            cycle.respond_problem(problem_of(fault, cycle.request.path.decode("latin-1")))
        else:
            cycle.respond(self._status, _encode(value), headers=self._headers)

    def client_disconnected(self) -> None:
        self.task.cancel()

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass
