"""A session: one worker, kept for one caller, until it is ended or expires."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx

from stoker.errors import MalformedAnswer, SessionClosed, StokerError, WorkerFailed
from stoker.requests.answer import Answer
from stoker.requests.attempts import Placed
from stoker.requests.body import compact
from stoker.requests.progress import OnWait

if TYPE_CHECKING:
    from stoker.endpoint import Endpoint
    from stoker.requests.stream import Stream

END_SECONDS_MAX = 10.0


class Session:
    """All its requests go to the same worker. Use it in `async with`; leaving it frees the worker.

    It occupies its worker with `cost` for as long as it is open. Each request extends it by `lifetime`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        cost: float,
        wish: dict[str, Any],
        timeout_seconds: float | None,
        on_wait: OnWait | None,
    ) -> None:
        self._endpoint = endpoint
        self._cost = cost
        self._wish = wish
        self._timeout_seconds = timeout_seconds
        self._on_wait = on_wait
        self._placed: Placed | None = None
        self._id = ""
        self._open = False

    def __repr__(self) -> str:
        return f"<Session {self._id or 'new'} {'open' if self._open else 'closed'}>"

    async def __aenter__(self) -> Self:
        answer, placed = await self._endpoint.exchange_for_session(
            self._wish, cost=self._cost, timeout=self._timeout_seconds, on_wait=self._on_wait
        )
        body = answer.json()
        session_id = body.get("session_id") if isinstance(body, dict) else None
        if not isinstance(session_id, str) or not session_id:
            raise MalformedAnswer(
                f"{placed.route.url}/session/create answered without a session_id; does its worker file allow sessions?"
            )
        self._id, self._placed, self._open = session_id, placed, True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(StokerError):  # it expires by itself; the block's own error matters more
            await self.aclose()

    @property
    def id(self) -> str:
        """The worker's name for it."""
        return self._id

    @property
    def is_open(self) -> bool:
        """Whether, as far as this side knows, it can be used."""
        return self._open

    @property
    def worker_url(self) -> str:
        """The worker that it occupies."""
        return self._pin().route.url

    def _pin(self) -> Placed:
        if self._placed is None or not self._open:
            raise SessionClosed("the session is not open; open one with `async with endpoint.session(…)`")
        return self._placed

    async def request(self, route: str, payload: Any = None, **options: Any) -> Answer:
        """As `Endpoint.request`, on the session's worker.

        Raises:
            SessionClosed: it was ended, has expired, or its worker is gone.
        """
        pin = self._pin()
        try:
            return await self._endpoint.request(route, payload, pinned=pin, session_id=self._id, **options)
        except SessionClosed:
            self._open = False
            raise
        except WorkerFailed as fault:
            if fault.status is not None:
                raise
            self._open = False
            raise SessionClosed(f"{fault}; the session's worker is gone, and its state with it") from None

    def stream(self, route: str, payload: Any = None, **options: Any) -> Stream:
        """As `Endpoint.stream`, on the session's worker."""
        return self._endpoint.stream(route, payload, pinned=self._pin(), session_id=self._id, **options)

    async def aclose(self) -> None:
        """End it; ending it twice does nothing.

        Raises:
            WorkerFailed: the worker could not be told; the session expires by itself.
        """
        if not self._open or self._placed is None:
            return
        self._open = False
        url = self._placed.route.url
        body = compact({"session_id": self._id, "session_auth": self._placed.auth_data}).encode()
        try:
            response = await self._endpoint.workers_pool.fetch(
                "POST",
                f"{url}/session/end",
                content=body,
                headers={"Content-Type": "application/json"},
                read_seconds_max=END_SECONDS_MAX,
            )
        except (httpx.TransportError, httpx.DecodingError) as broken:
            raise WorkerFailed(
                f"the worker {url} could not be told that the session ends: {broken}"
            ) from None
        if not response.is_success and response.status_code != 410:
            raise WorkerFailed(
                f"the worker {url} answered {response.status_code} to the end of session {self._id}; "
                "it will expire by itself",
                worker_url=url,
                status=response.status_code,
            )
