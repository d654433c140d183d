"""One request's way: ask the engine for a worker, send, and if that fails ask again, within bounds.

The same index (`request_idx`) and the same `Idempotency-Key` go through all attempts, so that the engine keeps the
request's place in the queue and a worker can tell a repetition from a second request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import httpx

from stoker.engine import Away, Engine
from stoker.errors import MalformedAnswer, RequestTimedOut, StokerError, Unauthorised
from stoker.requests.backoff import RetryPolicy, retry_after
from stoker.requests.body import Body
from stoker.requests.error_class import Fault, FaultKind, answer_fault, transport_fault
from stoker.requests.progress import Progress, RequestStatus, Wait, wait_of
from stoker.settings import check_url
from stoker.transport import Pool, Reply
from stoker_wire.route import Route, RouteRequest
from stoker_wire.security.fingerprint import fingerprint

T = TypeVar("T")

REPLAY_SECONDS = 60.0
"""For how long the engine keeps a request's place between two polls."""

QUICK_ANSWER_SECONDS = 1.0
"""An engine that says "wait" sooner than this does not hold calls: the client must pause itself."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A request with its worker: the route, and the same as it came (`auth_data`)."""

    route: Route = field(repr=False)
    auth_data: dict[str, Any] = field(repr=False)


class KeyRing(Protocol):
    """Where the key for routing comes from."""

    async def current(self) -> str:
        """The endpoint's key."""
        ...

    async def renewed(self, refused: str) -> str | None:
        """Another key after the engine refused this one, or None if there is none."""
        ...


@dataclass(slots=True, kw_only=True)
class Clock:
    """Where the time of one request went, s."""

    started: float = field(default_factory=time.monotonic)
    waited_s: float = 0.0
    lost_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started


@dataclass(slots=True, kw_only=True)
class RequestAttempts:
    """One request: what it is, and how far it has come."""

    engine: Engine
    workers: Pool
    policy: RetryPolicy
    keys: KeyRing
    endpoint: str
    path: str
    body: Body
    cost: float
    idempotency_key: str
    progress: Progress
    accept: str = "*/*"
    pinned: Placed | None = None
    """The worker of a session: no other will do."""
    session_id: str | None = None
    clock: Clock = field(default_factory=Clock)
    _fingerprint: str = field(init=False)
    _failed_url: str = ""
    _refusals: int = 0
    _failures: int = 0
    _tickets: int = 0

    def __post_init__(self) -> None:
        self._fingerprint = fingerprint(self.path, self.body.content_bytes)

    async def run(
        self, finish: Callable[[Reply, Placed], Awaitable[T]], *, timeout_seconds: float | None
    ) -> T:
        """Carry the request to `finish(reply, placed)`, which reads the answer; what it returns is returned.

        A `finish` that raises httpx.TransportError counts as a dropped request: it is tried again.

        Raises:
            StokerError: see `stoker.errors`; RequestTimedOut after `timeout_seconds`.
        """
        try:
            async with asyncio.timeout(timeout_seconds) as limit:
                result = await self._run(finish)
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
        return result

    async def _run(self, finish: Callable[[Reply, Placed], Awaitable[T]]) -> T:
        while True:
            placed = self.pinned or await self._find_worker()
            sent_at = time.monotonic()
            self.progress.status = RequestStatus.IN_PROGRESS
            self.progress.wait = None
            self.progress.attempts += 1
            self.progress.worker_url = placed.route.url
            pause_s = None
            try:
                async with await self._send(placed) as reply:
                    if reply.response.is_success:
                        return await finish(reply, placed)
                    await reply.response.aread()
                    fault = self._judge(reply.response)
                    pause_s = retry_after(
                        reply.response.headers.get("Retry-After"), seconds_max=self.policy.pause_seconds_max
                    )
            except (httpx.TransportError, httpx.DecodingError) as broken:
                fault = transport_fault(broken, placed.route.url, self.progress.attempts)
            self._count(fault)
            self.progress.status = RequestStatus.RETRYING
            self._failed_url = placed.route.url
            await self._pause(pause_s)
            self.clock.lost_s += time.monotonic() - sent_at

    async def _send(self, placed: Placed) -> Reply:
        content, headers = self.body.render(placed.auth_data, self.session_id)
        headers["Idempotency-Key"] = self.idempotency_key
        headers["Accept"] = self.accept
        return await self.workers.open("POST", placed.route.url + self.path, content=content, headers=headers)

    def _judge(self, response: httpx.Response) -> Fault:
        fault = answer_fault(
            response, self.progress.worker_url, self.progress.attempts, in_session=self.session_id is not None
        )
        if fault is None:
            raise AssertionError("a served request has no fault")
        return fault

    def _count(self, fault: Fault) -> None:
        """Book a failed attempt.

        Raises:
            StokerError: it was the last one allowed.
        """
        if fault.kind is FaultKind.REFUSED:
            self._refusals += 1
        elif fault.kind is FaultKind.FAILED:
            self._failures += 1
        elif fault.kind is FaultKind.TICKET:
            self._tickets += 1
        out_of_tries = (
            fault.kind is FaultKind.FINAL
            or self._refusals > self.policy.refusals_max
            or self._failures > self.policy.failures_max
            or (self._tickets > 0 and self.policy.refusals_max == 0)
            or self._tickets > 1
        )
        if out_of_tries:
            raise fault.error

    async def _pause(self, asked_s: float | None) -> None:
        """None before the second attempt: the engine sends it elsewhere, and has been told whom to avoid."""
        failed = self._refusals + self._failures + self._tickets
        if asked_s is not None and self.pinned is not None:
            await asyncio.sleep(asked_s)
        elif failed > 1 or self.pinned is not None:
            await asyncio.sleep(self.policy.pause(failed))

    async def _find_worker(self) -> Placed:
        """Poll the engine until it names a worker."""
        asked_at = time.monotonic()
        away_since: float | None = None
        quick = tries = 0
        key = await self.keys.current()
        if self.progress.status is RequestStatus.NEW:
            self.progress.status = RequestStatus.QUEUED
        while True:
            called_at = time.monotonic()
            try:
                answer, raw = await self.engine.route(self._question(), key=key)
            except Unauthorised:
                other = await self.keys.renewed(key)
                if other is None:
                    raise
                key = other
                continue
            except Away as away:
                tries += 1
                away_since = called_at if away_since is None else away_since
                outage_s = time.monotonic() - away_since
                if outage_s >= self.policy.engine_outage_seconds_max:
                    raise self.engine.unavailable(away, outage_s) from None
                self._engine_is_away(away, outage_s)
                await asyncio.sleep(away.retry_after_s or self.policy.pause(tries))
                continue
            away_since, tries = None, 0
            self._failed_url = ""
            self.progress.request_idx = answer.request_idx
            if isinstance(answer, Route):
                self.clock.waited_s += time.monotonic() - asked_at
                return self._checked(answer, raw)
            self.progress.status = RequestStatus.POLLING
            self.progress.waits(wait_of(answer, self.clock.waited_s + time.monotonic() - asked_at))
            if time.monotonic() - called_at < QUICK_ANSWER_SECONDS:
                quick += 1
                await asyncio.sleep(self.policy.pause(quick))

    def _question(self) -> RouteRequest:
        return RouteRequest(
            endpoint=self.endpoint,
            cost=self.cost,
            request_idx=self.progress.request_idx,
            replay_timeout=REPLAY_SECONDS,
            failed_url=self._failed_url,
            fingerprint=self._fingerprint,
        )

    def _engine_is_away(self, away: Away, outage_s: float) -> None:
        self.progress.status = RequestStatus.RETRYING
        self.progress.waits(
            Wait(
                reason="engine",
                status=f"the engine has not answered for {outage_s:.0f} s ({away.sentence}); trying again",
                waited_s=self.clock.total_s,
            )
        )

    def _checked(self, route: Route, raw: dict[str, Any]) -> Placed:
        try:
            httpx.URL(check_url(route.url))
        except (StokerError, httpx.InvalidURL):
            raise MalformedAnswer(
                f"the engine routed to {route.url!r:.200}, which is no http(s) address of a worker"
            ) from None
        return Placed(route.model_copy(update={"url": route.url.rstrip("/")}), raw)

    def _timed_out(self, timeout_seconds: float | None) -> RequestTimedOut:
        reason, sentence = self.progress.describe()
        return RequestTimedOut(
            f"not answered within {timeout_seconds:g} s: {sentence.rstrip('.')}. Give a longer timeout=…, "
            "or see `stoker endpoints show` for what the endpoint is doing",
            reason=reason,
            waited_s=self.clock.total_s,
        )
