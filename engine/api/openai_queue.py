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
from engine.routing.wait_reasons import why_waiting
from engine.routing.worker import KnownWorker


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

    def return_ticket(self, *, cost: float | None = None) -> None:
        """Back into the queue after a refusal that is no fault of the worker; `cost` replaces the one that was booked."""
        place = self._place
        if place is None or place.worker is None:
            return
        if cost is None:
            place.avoid |= {place.worker.launch_id}
        else:
            place.cost = cost
        self._endpoint.finished.pop(place.request_idx, None)
        place.finished = self._shown = False
        self._engine.dispatcher.unassign(self._endpoint, place, time.time())

    @property
    def worker(self) -> KnownWorker | None:
        """The worker that it was given."""
        return None if self._place is None else self._place.worker

    @property
    def tried(self) -> bool:
        """Whether its worker is one that it should avoid: there is no other."""
        worker = self.worker
        return worker is not None and self._place is not None and worker.launch_id in self._place.avoid

    @property
    def has_alternative(self) -> bool:
        """Whether a worker is ready that did not refuse the request."""
        avoid = frozenset[str]() if self._place is None else self._place.avoid
        return any(candidate.launch_id not in avoid for candidate in self._endpoint.candidates)

    @property
    def reason(self) -> str:
        """Why it waits, in a sentence."""
        place = self._place
        if place is None:
            return "the request is being read"
        if place.worker is not None:
            return "a worker has the request and has not answered yet"
        reason = why_waiting(self._endpoint, place, time.time())
        eta = "" if reason.eta_s is None else f"; expected in {reason.eta_s:.0f} s"
        return f"{reason.sentence}{eta} ({reason.code})"

    def _take(self, place: QueuedRequest) -> None:
        """Its place from now on; a ticket that comes with it is a new one."""
        self._place, self._shown = place, False
