"""The attempts of one request: get a worker from the engine, send, and retry elsewhere within bounds.

All attempts carry the same index (`request_idx`) and the same `Idempotency-Key`. The index keeps the request's place in
the engine's queue. The key lets a worker tell a retry from a second request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import httpx

from stoker.engine import RATE_LIMIT_CODE, Engine, Outage, TransientEngineError, problem_of
from stoker.errors import MalformedAnswer, RequestTimedOut, StokerError, Unauthorised
from stoker.requests.body import Body
from stoker.requests.progress import Progress, RequestStatus, Wait, wait_of
from stoker.requests.retry.backoff import RetryPolicy, retry_after
from stoker.requests.retry.error_class import (
    AttemptError,
    ErrorKind,
    classify_answer,
    classify_transport_error,
)
from stoker.requests.tracing import NO_FIELDS, RequestTrace, trace_of
from stoker.settings import check_url
from stoker.transport import ConnectionPool, Reply
from stoker_wire.parsing.numbers import read_number
from stoker_wire.route import COST_MAX, Route, RouteRequest
from stoker_wire.security.fingerprint import fingerprint
from stoker_wire.workload import WORKLOAD_HEADER

T = TypeVar("T")

SESSION_PATH = "/session/create"

REPLAY_SECONDS = 60.0
"""How long the engine keeps a request's place between two polls."""

QUICK_ANSWER_SECONDS = 1.0
"""An engine that answers "wait" faster than this does not hold the call open, so the client pauses between polls."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The worker that the engine chose for a request: the parsed route, and the JSON that the worker must receive."""

    route: Route = field(repr=False)
    auth_data: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SessionWorker:
    """The worker of an open session. Requests of the session go to no other worker."""

    placement: Placement
    session_id: str


class KeyProvider(Protocol):
    """The source of the key for routing."""

    async def current(self) -> str:
        """The endpoint's key."""
        ...

    async def renew(self, refused: str) -> str | None:
        """Another key after the engine refused this one; None if there is no other."""
        ...


@dataclass(slots=True, kw_only=True)
class RequestTimer:
    """Where the time of one request went, s."""

    started: float = field(default_factory=time.monotonic)
    waited_s: float = 0.0
    lost_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started


@dataclass(slots=True, kw_only=True)
class RequestAttempts:
    """One request and the state of its attempts."""

    engine: Engine
    workers: ConnectionPool
    policy: RetryPolicy
    keys: KeyProvider
    endpoint: str
    path: str
    body: Body
    cost: float
    idempotency_key: str
    progress: Progress
    affinity: str = ""
    accept: str = "*/*"
    session: SessionWorker | None = None
    """The session that the request belongs to; None: any worker serves it."""
    timer: RequestTimer = field(default_factory=RequestTimer)
    _failed_url: str = ""
    _unread: bool = False
    """The failed worker did not process the request."""
    _refusals: int = 0
    _failures: int = 0
    _tickets_refused: int = 0
    _repriced: bool = False
    _trace: RequestTrace | None = None

    async def run(
        self, finish: Callable[[Reply, Placement], Awaitable[T]], *, timeout_seconds: float | None
    ) -> T:
        """Send until a worker serves the request; `finish(reply, placement)` reads the answer and makes the result.

        httpx.TransportError from `finish` counts as a dropped request and starts another attempt. After the answer's end
        the caller calls `end_trace`.

        Raises:
            StokerError: see `stoker.errors`; RequestTimedOut after `timeout_seconds`.
        """
        self._trace = trace_of(self.endpoint, self.path)
        try:
            return await self._bounded(self._run(finish), timeout_seconds)
        except BaseException as error:
            self.end_trace(error)
            raise

    async def find_worker(self, *, timeout_seconds: float | None) -> Placement:
        """Wait for a worker, and send it nothing.

        Raises:
            StokerError: see `stoker.errors`; RequestTimedOut after `timeout_seconds`.
        """
        return await self._bounded(self._find_worker(""), timeout_seconds)

    def end_trace(self, error: BaseException | None = None) -> None:
        """The caller has the whole answer, or the error."""
        if self._trace is not None:
            self._trace.end(self.progress, error)

    async def _bounded(self, work: Coroutine[Any, Any, T], timeout_seconds: float | None) -> T:
        try:
            async with asyncio.timeout(timeout_seconds) as limit:
                return await work
        except TimeoutError:
            if not limit.expired():
                raise
            error = self._timed_out(timeout_seconds)
            self.progress.status = RequestStatus.ERRORED
            raise error from None
        except asyncio.CancelledError:
            self.progress.status = RequestStatus.CANCELLED
            raise
        except BaseException:
            self.progress.status = RequestStatus.ERRORED
            raise

    async def _run(self, finish: Callable[[Reply, Placement], Awaitable[T]]) -> T:
        # The options of a session are equal for many sessions, and do not say what its requests contain.
        opens_session = self.path == SESSION_PATH
        content = "" if opens_session else fingerprint(self.path, self.body.content_bytes)
        while True:
            placement = self.session.placement if self.session else await self._find_worker(content)
            sent_at = time.monotonic()
            self.progress.status = RequestStatus.IN_PROGRESS
            self.progress.wait = None
            self.progress.attempts += 1
            self.progress.worker_url = placement.route.url
            pause_s = None
            try:
                async with await self._send(placement) as reply:
                    if reply.response.is_success:
                        return await finish(reply, placement)
                    await reply.response.aread()
                    if self._reprices(reply.response):
                        continue
                    error = self._classify(reply.response)
                    pause_s = retry_after(
                        reply.response.headers.get("Retry-After"), seconds_max=self.policy.pause_seconds_max
                    )
            except (httpx.TransportError, httpx.DecodingError) as broken:
                error = classify_transport_error(broken, placement.route.url, self.progress.attempts)
            self._record_failure(error)
            self.progress.status = RequestStatus.RETRYING
            self._failed_url, self._unread = placement.route.url, error.kind is ErrorKind.REFUSED
            await self._pause(pause_s)
            self.timer.lost_s += time.monotonic() - sent_at

    async def _send(self, placement: Placement) -> Reply:
        session_id = self.session.session_id if self.session else None
        content, headers = self.body.render(placement.auth_data, session_id)
        headers["Idempotency-Key"] = self.idempotency_key
        headers["Accept"] = self.accept
        headers.update(self._trace_fields)
        url = placement.route.url + self.path
        return await self.workers.open("POST", url, content=content, headers=headers)

    @property
    def _trace_fields(self) -> Mapping[str, str]:
        return NO_FIELDS if self._trace is None else self._trace.fields

    def _reprices(self, response: httpx.Response) -> bool:
        """Whether the request is routed once more, as a new one, with the workload that the worker computed.

        The worker refused it because its ticket allows less; no work was done and nobody failed.
        """
        code, _ = problem_of(response)
        workload = read_number(response.headers.get(WORKLOAD_HEADER, ""))
        if code != "ticket_cost_exceeded" or self.session is not None or self._repriced:
            return False
        if workload is None or not self.cost < workload <= COST_MAX:
            return False
        self._repriced = True
        self.cost = workload
        self.progress.request_idx = 0
        return True

    def _classify(self, response: httpx.Response) -> AttemptError:
        return classify_answer(
            response, self.progress.worker_url, self.progress.attempts, in_session=self.session is not None
        )

    def _record_failure(self, error: AttemptError) -> None:
        """Count a failed attempt.

        Raises:
            StokerError: no further attempt is allowed.
        """
        if error.kind is ErrorKind.REFUSED:
            self._refusals += 1
        elif error.kind is ErrorKind.FAILED:
            self._failures += 1
        elif error.kind is ErrorKind.TICKET:
            self._tickets_refused += 1
        no_more_attempts = (
            error.kind is ErrorKind.FINAL
            or self._refusals > self.policy.refusals_max
            or self._failures > self.policy.failures_max
            or (self._tickets_refused > 0 and self.policy.refusals_max == 0)
            or self._tickets_refused > 1
        )
        if no_more_attempts:
            raise error.error

    async def _pause(self, retry_after_s: float | None) -> None:
        """Back off. The second attempt starts at once, because the engine routes it to another worker."""
        failed = self._refusals + self._failures + self._tickets_refused
        if retry_after_s is not None and self.session is not None:
            await asyncio.sleep(retry_after_s)
        elif failed > 1 or self.session is not None:
            await asyncio.sleep(self.policy.pause(failed))

    async def _find_worker(self, content_fingerprint: str) -> Placement:
        """Poll the engine until it routes the request to a worker."""
        polling_since = time.monotonic()
        outage: Outage | None = None
        quick_answers = failed_calls = 0
        key = await self.keys.current()
        if self.progress.status is RequestStatus.NEW:
            self.progress.status = RequestStatus.QUEUED
        while True:
            called_at = time.monotonic()
            try:
                answer, auth_data = await self.engine.route(
                    self._route_request(content_fingerprint), key=key, trace=self._trace_fields
                )
            except Unauthorised:
                other = await self.keys.renew(key)
                if other is None:
                    raise
                key = other
                continue
            except TransientEngineError as error:
                if error.code == RATE_LIMIT_CODE:
                    waited_s = self.timer.waited_s + time.monotonic() - polling_since
                    self.progress.report_wait(
                        Wait(reason="rate_limit", status=error.message, waited_s=waited_s)
                    )
                    await asyncio.sleep(error.retry_after_s or self.policy.pause(1))
                    continue
                failed_calls += 1
                outage = outage or Outage(called_at)
                outage_s = outage.failed()
                if outage_s >= self.policy.engine_outage_seconds_max:
                    raise self.engine.unavailable(error, outage_s) from None
                self._report_outage(error, outage_s)
                await asyncio.sleep(error.retry_after_s or self.policy.pause(failed_calls))
                continue
            outage, failed_calls = None, 0
            self._failed_url, self._unread = "", False
            self.progress.request_idx = answer.request_idx
            if isinstance(answer, Route):
                self.timer.waited_s += time.monotonic() - polling_since
                return self._check_route(answer, auth_data)
            self.progress.status = RequestStatus.POLLING
            waited_s = self.timer.waited_s + time.monotonic() - polling_since
            self.progress.report_wait(wait_of(answer, waited_s))
            if time.monotonic() - called_at < QUICK_ANSWER_SECONDS:
                quick_answers += 1
                await asyncio.sleep(self.policy.pause(quick_answers))

    def _route_request(self, content_fingerprint: str) -> RouteRequest:
        return RouteRequest(
            endpoint=self.endpoint,
            cost=self.cost,
            request_idx=self.progress.request_idx,
            replay_timeout=REPLAY_SECONDS,
            failed_url=self._failed_url,
            unread=self._unread,
            fingerprint=content_fingerprint,
            affinity=self.affinity,
        )

    def _report_outage(self, error: TransientEngineError, outage_s: float) -> None:
        self.progress.status = RequestStatus.RETRYING
        self.progress.report_wait(
            Wait(
                reason="engine",
                status=f"the engine has not answered for {outage_s:.0f} s ({error.sentence}); trying again",
                waited_s=self.timer.total_s,
            )
        )

    def _check_route(self, route: Route, auth_data: dict[str, Any]) -> Placement:
        try:
            httpx.URL(check_url(route.url))
        except (StokerError, httpx.InvalidURL):
            raise MalformedAnswer(
                f"the engine routed to {route.url!r:.200}, which is no http(s) address of a worker"
            ) from None
        return Placement(route.model_copy(update={"url": route.url.rstrip("/")}), auth_data)

    def _timed_out(self, timeout_seconds: float | None) -> RequestTimedOut:
        reason, sentence = self.progress.describe()
        remedy = "see `stoker endpoints show` for the endpoint's state"
        if reason != "worker_failed":  # no patience helps there
            remedy = f"give a longer timeout=…, or {remedy}"
        return RequestTimedOut(
            f"not answered within {timeout_seconds:g} s: {sentence.rstrip('.')}. {remedy[0].upper()}{remedy[1:]}",
            reason=reason,
            waited_s=self.timer.total_s,
        )
