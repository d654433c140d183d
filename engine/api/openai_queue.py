"""The queue entry of one call of the OpenAI API. It leaves the queue when the call ends."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from engine.api.parsing import FastRouteRequest
from engine.api.route_api import Access, RouteApi
from engine.engine import Engine
from engine.request_log import Outcome
from engine.routing.failure_detection.broken_workers import identify
from engine.routing.requests.request_queue import QueuedRequest
from engine.routing.wait_reasons import why_waiting
from engine.routing.worker import KnownWorker
from stoker_wire.errors.problem import Problem
from stoker_wire.http1.messages import Header

if TYPE_CHECKING:  # belongs to the extra `otel`
    from opentelemetry.trace import Span

WAIT_SECONDS_MAX = 600.0
"""Longest wait for a worker. These clients cannot poll, so the engine holds the call."""
_PAUSE_SECONDS = 1.0
_RETRY_AFTER_SECONDS = 5
_RETRY_AFTER_SECONDS_MAX = 60


class OpenAIQueueEntry:
    """Routes one call, and removes its request from the queue when the call ends.

    A client of `/route/` may ask again with its index, so its request stays queued for a while. These clients have no
    index: a request that stayed behind would count as waiting load and would rent machines for no client.
    """

    def __init__(
        self,
        engine: Engine,
        route_api: RouteApi,
        access: Access,
        compute_fingerprint: Callable[[], str] = str,
    ) -> None:
        """`compute_fingerprint` returns an empty text for calls whose copies are not recognised."""
        self._engine = engine
        self._route_api = route_api
        self._endpoint, self._account = access
        self._compute_fingerprint = compute_fingerprint
        self._place: QueuedRequest | None = None
        self._shown = False
        self._request_idx = 0
        self.failed_url = ""
        """Address of the worker that has just failed."""
        self.span: Span | None = None
        """Of the call; None: it is not traced."""
        self._deadline = time.monotonic() + WAIT_SECONDS_MAX

    def __repr__(self) -> str:
        return f"<OpenAIQueueEntry at {self._endpoint.name}, {self._place!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        place = self._place
        # A worker that has the ticket reports the end of the request itself.
        if place is not None and not (place.worker is not None and self._shown):
            outcome = Outcome.CUT_OFF if self._engine.stopping else Outcome.EXPIRED
            self._engine.dispatcher.abandon(self._endpoint, place, outcome, time.time())

    async def find_worker(self, cost: float, affinity: str = "") -> dict[str, Any]:
        """The route to a worker.

        Raises:
            Problem: 503, no worker became available; 404, the endpoint is being deleted.
        """
        while True:
            fingerprint = self._identify() if self._endpoint.broken_requests else ""
            asked = FastRouteRequest(
                endpoint=self._endpoint.name,
                cost=cost,
                request_idx=self._request_idx,
                failed_url=self.failed_url,
                unread=bool(self.failed_url) and not self._shown,
                fingerprint=fingerprint,
                affinity=affinity,
            )
            began = time.monotonic()
            route = await self._route(asked)
            self._request_idx, self.failed_url = route["request_idx"], ""
            if "url" in route:
                return route
            if time.monotonic() > self._deadline or self._engine.stopping:
                raise self._no_worker(route)
            if time.monotonic() - began < _PAUSE_SECONDS:  # answered without a hold
                await asyncio.sleep(_PAUSE_SECONDS)

    def _no_worker(self, route: dict[str, Any]) -> Problem:
        waited = "no worker" if self._engine.stopping else f"no worker in {WAIT_SECONDS_MAX:.0f} s"
        eta = route["eta_s"]
        seconds = _RETRY_AFTER_SECONDS
        expected = ""
        if eta is not None and not self._engine.stopping:
            seconds = min(max(math.ceil(eta), _RETRY_AFTER_SECONDS), _RETRY_AFTER_SECONDS_MAX)
            expected = f"; expected in {eta:.0f} s"
        message = f"{waited}: {route['status']} ({route['reason']}){expected}"
        return Problem(503, "no_worker", message, headers={"Retry-After": str(seconds)})

    async def _route(self, asked: FastRouteRequest) -> dict[str, Any]:
        """As `RouteApi.route` answers.

        Raises:
            Problem: 404, the endpoint is being deleted.
        """
        return await self._route_api.route(
            self._endpoint, asked, account=self._account, placed=self._take, span=self.span
        )

    def admit(self, cost: float) -> None:
        """Count the call against the limits of its key, once for all its attempts.

        Raises:
            Problem: 429, a limit is reached.
        """
        if self._account is not None:
            asked = FastRouteRequest(endpoint=self._endpoint.name, cost=cost)
            self._engine.dispatcher.admit(self._endpoint, self._account, asked, time.time())

    def show_ticket(self) -> None:
        """The request is being sent to the worker, so the ticket counts as used."""
        self._shown = True
        self._identify()  # after the send: only a break of the worker needs it, and it would delay the call

    def refused(self) -> None:
        """The worker refused the request, so its ticket counts as no load, even without a report."""
        self._shown = False

    def return_ticket(self, *, cost: float | None = None) -> None:
        """Queue again after a refusal that is not the worker's fault. `cost` replaces the booked cost."""
        place = self._place
        if place is None or place.worker is None:
            return
        if cost is None:
            place.avoid |= {place.worker.launch_id}
        else:
            if self._account is not None:
                self._account.count(cost - place.cost, time.time())
            place.cost = cost
        self._endpoint.finished.pop(place.request_idx, None)
        place.finished = self._shown = False
        self._engine.dispatcher.unassign(self._endpoint, place, time.time())

    def add_trace(self, fields: list[Header]) -> list[Header]:
        """The worker's span becomes a child of this call's. Without tracing, the client's own fields pass."""
        tracing = self._engine.tracing
        if tracing is not None and self.span is not None:
            return tracing.with_parent(fields, self.span)
        return fields

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

    @functools.cached_property
    def _fingerprint(self) -> str:
        return self._compute_fingerprint()

    def _identify(self) -> str:
        """The fingerprint, which its request gets as well."""
        if self._fingerprint and self._place is not None:
            identify(self._endpoint, self._place, self._fingerprint)
        return self._fingerprint

    def _take(self, place: QueuedRequest) -> None:
        """Remember the queued request. Its next ticket is a new one."""
        self._place, self._shown = place, False
        if place.worker is None:
            self._identify()
        if self.span is not None:
            self.span.set_attribute("stoker.request_id", str(place.request_idx))
