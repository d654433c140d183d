"""A call of the OpenAI door has its one turn in an endpoint's line, and nobody can come again for it once the call has ended."""

import time
from types import TracebackType
from typing import Any, Self

from engine.endpoints import Endpoint
from engine.engine import Engine
from engine.request_log import Outcome
from engine.routing import RouteDesk
from engine.waiting import Place


class Turn(RouteDesk):
    """Routes one call, and knows its place, so that the place does not outlast the call.

    A client of `/route/` may come again with its index, so its place is kept for a while. A plain client has no index: what
    stayed behind it would be taken for load that waits, and would rent machines for nobody.
    """

    def __init__(self, engine: Engine, endpoint: Endpoint) -> None:
        super().__init__(engine)
        self._endpoint = endpoint
        self._place: Place | None = None
        self._shown = False

    def __repr__(self) -> str:
        return f"<Turn at {self._endpoint.name}, {self._place!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        place = self._place
        # What the worker was shown is in its hands: it says itself how that ended.
        if place is not None and not (place.worker is not None and self._shown):
            outcome = Outcome.CUT_OFF if self._engine.stopping else Outcome.EXPIRED
            self._engine.router.abandon(self._endpoint, place, outcome, time.time())

    def show_ticket(self) -> None:
        """The request is on its way to the worker: the ticket counts as used."""
        self._shown = True

    async def _hold(self, endpoint: Endpoint, place: Place, now: float) -> bool:
        self._place, self._shown = place, False
        return await super()._hold(endpoint, place, now)

    def _route_answer(self, endpoint: Endpoint, place: Place) -> dict[str, Any]:
        self._place, self._shown = place, False
        return super()._route_answer(endpoint, place)
