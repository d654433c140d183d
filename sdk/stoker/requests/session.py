"""A session: one worker, reserved for one caller until the session ends or expires."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

import httpx

from stoker.errors import Invalid, MalformedAnswer, SessionClosed, StokerError, WorkerFailed
from stoker.requests.answer import Answer
from stoker.requests.attempts import SESSION_PATH, SessionWorker
from stoker.requests.body import check_path, compact_json
from stoker.requests.progress import OnWait
from stoker.requests.request import Request, RequestOptions
from stoker.requests.sender import RequestSender
from stoker.requests.stream import Stream
from stoker_wire.route import DEFAULT_COST

END_SECONDS_MAX = 10.0
"""For the worker's answer to the end of a session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSpec:
    """A session as its caller describes it."""

    cost: float = DEFAULT_COST
    """Work that the session reserves on its worker, in the endpoint's units."""
    lifetime: float = 60.0
    """Seconds until it expires; each request extends it by as much."""
    timeout: float | None = None
    """Seconds for opening it; None: the client's default."""
    on_wait: OnWait | None = None
    """Called with a `Wait` while no worker is free."""
    on_close_route: str | None = None
    """One of the worker's routes, to which it posts `on_close_payload` when the session closes."""
    on_close_payload: Any = None

    def request(self) -> Request:
        """The request that opens the session.

        Raises:
            Invalid: the lifetime or the route is out of bounds.
        """
        if not 0 < self.lifetime < float("inf"):
            raise Invalid(f"lifetime is {self.lifetime} s; expected more than 0")
        payload = {
            "lifetime": self.lifetime,
            "on_close_route": None if self.on_close_route is None else check_path(self.on_close_route),
            "on_close_payload": self.on_close_payload,
        }
        return Request(
            route=SESSION_PATH,
            payload=payload,
            cost=self.cost,
            timeout=self.timeout,
            on_wait=self.on_wait,
        )


class SessionOptions(TypedDict, total=False):
    """Keyword arguments of `Endpoint.session`: the fields of `SessionSpec`."""

    cost: float
    lifetime: float
    timeout: float | None
    on_wait: OnWait | None
    on_close_route: str | None
    on_close_payload: Any


class Session:
    """All requests of a session go to the same worker. Use it in `async with`; leaving the block frees the worker.

    An open session occupies its worker with `cost`. Each request extends it by `lifetime`.
    """

    def __init__(self, sender: RequestSender, opening: Request) -> None:
        self._sender = sender
        self._opening = opening
        self._worker: SessionWorker | None = None
        self._open = False

    def __repr__(self) -> str:
        return f"<Session {self.id or 'new'} {'open' if self._open else 'closed'}>"

    async def __aenter__(self) -> Self:
        answer, placement = await self._sender.send_and_locate(self._opening)
        body = answer.json()
        session_id = body.get("session_id") if isinstance(body, dict) else None
        if not isinstance(session_id, str) or not session_id:
            raise MalformedAnswer(
                f"{placement.route.url}/session/create answered without a session_id; "
                "does its worker file allow sessions?"
            )
        self._worker, self._open = SessionWorker(placement, session_id), True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(
            StokerError
        ):  # the session expires by itself; the block's own error matters more
            await self.aclose()

    @property
    def id(self) -> str:
        """The worker's name for the session; "" before it is open."""
        return self._worker.session_id if self._worker else ""

    @property
    def is_open(self) -> bool:
        """Whether the session can be used, as far as the client knows."""
        return self._open

    @property
    def worker_url(self) -> str:
        """The worker that the session occupies."""
        return self._open_worker().placement.route.url

    def _open_worker(self) -> SessionWorker:
        if self._worker is None or not self._open:
            raise SessionClosed("the session is not open; open one with `async with endpoint.session(…)`")
        return self._worker

    async def request(self, route: str, payload: Any = None, **options: Unpack[RequestOptions]) -> Answer:
        """As `Endpoint.request`, on the session's worker.

        Raises:
            SessionClosed: the session was ended, has expired, or lost its worker.
        """
        worker = self._open_worker()
        try:
            return await self._sender.send(Request(route=route, payload=payload, **options), session=worker)
        except SessionClosed:
            self._open = False
            raise
        except WorkerFailed as fault:
            if fault.status is not None:
                raise
            self._open = False
            raise SessionClosed(f"{fault}; the session's worker is gone, and its state with it") from None

    def stream(
        self,
        route: str,
        payload: Any = None,
        *,
        idle_timeout: float | None = None,
        **options: Unpack[RequestOptions],
    ) -> Stream:
        """As `Endpoint.stream`, on the session's worker."""
        request = Request(route=route, payload=payload, **options)
        return self._sender.stream(request, idle_timeout=idle_timeout, session=self._open_worker())

    async def aclose(self) -> None:
        """End the session; ending it twice does nothing.

        Raises:
            WorkerFailed: the worker did not confirm the end; the session expires by itself.
        """
        if not self._open or self._worker is None:
            return
        self._open = False
        placement = self._worker.placement
        url = placement.route.url
        body = compact_json({"session_id": self.id, "session_auth": placement.auth_data}).encode()
        try:
            response = await self._sender.workers.fetch(
                "POST",
                f"{url}/session/end",
                content=body,
                headers={"Content-Type": "application/json"},
                read_seconds_max=END_SECONDS_MAX,
            )
        except (httpx.TransportError, httpx.DecodingError) as broken:
            raise WorkerFailed(
                f"the worker {url} did not answer the end of session {self.id} ({broken}); it will expire by itself",
                worker_url=url,
            ) from None
        if not response.is_success and response.status_code != 410:
            raise WorkerFailed(
                f"the worker {url} answered {response.status_code} to the end of session {self.id}; "
                "it will expire by itself",
                worker_url=url,
                status=response.status_code,
            )
