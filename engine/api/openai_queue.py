"""A call of the OpenAI door has its one turn in an endpoint's line, and nobody can come again for it once the call has ended."""

import time
from types import TracebackType
from typing import Any, Self

from engine.api.parsing import FastRouteRequest
from engine.api.route_api import RouteApi
from engine.engine import Engine
from engine.request_log import Outcome
from engine.routing.endpoint import Endpoint
from engine.routing.request_queue import QueuedRequest


class OpenAIQueueEntry:
    """Routes one call, and knows its place, so that the place does not outlast the call.

    A client of `/route/` may come again with its index, so its place is kept for a while. A plain client has no index: what
    stayed behind it would be taken for load that waits, and would rent machines for nobody.
    """

    def __init__(self, engine: Engine, desk: RouteApi, endpoint: Endpoint) -> None:
        self._engine = engine
        self._desk = desk
        self._endpoint = endpoint
        self._place: QueuedRequest | None = None
        self._shown = False

    def __repr__(self) -> str:
        return f"<OpenAIQueueEntry at {self._endpoint.name}, {self._place!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        place = self._place
        # What the worker was shown is in its hands: it says itself how that ended.
        if place is not None and not (place.worker is not None and self._shown):
            outcome = Outcome.CUT_OFF if self._engine.stopping else Outcome.EXPIRED
            self._engine.dispatcher.abandon(self._endpoint, place, outcome, time.time())

    async def route(self, asked: FastRouteRequest) -> dict[str, Any]:
        """As `RouteApi.route` answers.

        Raises:
            Problem: 404, the endpoint is being deleted.
        """
        return await self._desk.route(self._endpoint, asked, placed=self._take)

    def show_ticket(self) -> None:
        """The request is on its way to the worker: the ticket counts as used."""
        self._shown = True

    def refused(self) -> None:
        """The worker turned the request away: its ticket is no work, whether or not the worker reports that."""
        self._shown = False

    def _take(self, place: QueuedRequest) -> None:
        """Its place from now on; a ticket that comes with it is a new one."""
        self._place, self._shown = place, False
