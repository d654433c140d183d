"""Calls that are answered later."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec

from engine.api.problems import problem_of
from stoker_wire.http1.response_cycle import ResponseCycle

_encode = msgspec.json.Encoder().encode


def respond_later(cycle: ResponseCycle, work: Coroutine[Any, Any, Any]) -> None:
    """Answer with the JSON value that the work returns, or with the problem that it raises.

    The work is cancelled when the client disconnects.
    """
    pending = _Pending(cycle)
    cycle.listener = pending
    pending.task = asyncio.get_running_loop().create_task(pending.run(work))


class _Pending:
    __slots__ = ("_cycle", "task")

    def __init__(self, cycle: ResponseCycle) -> None:
        self._cycle = cycle
        self.task: asyncio.Task[None]

    async def run(self, work: Coroutine[Any, Any, Any]) -> None:
        cycle = self._cycle
        try:
            value = await work
        except Exception as fault:  # noqa: BLE001 - every fault has a problem
            cycle.respond_problem(problem_of(fault, cycle.request.path.decode("latin-1")))
        else:
            cycle.respond(200, _encode(value))

    def client_disconnected(self) -> None:
        self.task.cancel()

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass
