"""A job: several calls of one worker with one ticket, made by the client of another API."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Self, TypedDict

import httpx

from stoker.errors import StokerError, WorkerFailed
from stoker.requests.progress import OnWait
from stoker.requests.request import Request
from stoker.requests.sender import RequestSender

END_SECONDS_MAX = 10.0
"""For the worker's answer to the end of a job."""


class JobOptions(TypedDict, total=False):
    """Keyword arguments of `Endpoint.job`."""

    timeout: float | None
    affinity: str
    on_wait: OnWait | None


class Job:
    """Use it in `async with`; inside, `url` is the base address for the calls of one job. Leaving the block ends it.

    The calls may use any method and WebSockets, on routes that the worker file declares with `in_job`. The first one
    must come within a minute. The address contains the ticket, so treat it as a secret.
    """

    def __init__(self, sender: RequestSender, opening: Request) -> None:
        self._sender = sender
        self._opening = opening
        self._worker_url = ""
        self._ticket = ""

    def __repr__(self) -> str:
        return f"<Job at {self._worker_url or 'no worker yet'}>"

    async def __aenter__(self) -> Self:
        placement = await self._sender.find_worker(self._opening)
        self._worker_url, self._ticket = placement.route.url, placement.route.ticket
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(StokerError):  # the job ends by itself; the block's own error matters more
            await self.aclose()

    @property
    def url(self) -> str:
        """The base address of the job's calls at the worker."""
        return f"{self._worker_url}/pyworker/job/{self._ticket}"

    @property
    def engine_url(self) -> str:
        """The base address of the same calls through the engine, for clients that cannot reach the worker."""
        return f"{self._sender.engine.url}/job/{self._sender.endpoint_name}/{self._ticket}"

    async def aclose(self) -> None:
        """End the job. A job without a call needs no end.

        Raises:
            WorkerFailed: the worker did not answer; the job ends by itself.
        """
        if not self._ticket:
            return
        try:
            await self._sender.workers.fetch("DELETE", self.url, read_seconds_max=END_SECONDS_MAX)
        except (httpx.TransportError, httpx.DecodingError) as broken:
            raise WorkerFailed(
                f"the worker {self._worker_url} did not answer the end of the job ({broken}); it ends by itself",
                worker_url=self._worker_url,
            ) from None
