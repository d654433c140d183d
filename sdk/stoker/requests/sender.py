"""Sends requests to the workers of one endpoint."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from stoker.engine import Engine
from stoker.errors import Invalid
from stoker.requests.answer import Answer, make_answer
from stoker.requests.attempts import KeyProvider, Placement, RequestAttempts, SessionWorker
from stoker.requests.body import check_path, make_body
from stoker.requests.progress import Progress, RequestStatus
from stoker.requests.request import Request
from stoker.requests.retry.backoff import NO_RETRY, RetryPolicy
from stoker.requests.stream import Stream
from stoker.transport import ConnectionPool, Reply
from stoker_wire.route import AFFINITY_CHARS_MAX, COST_MAX

STREAM_ACCEPT = "text/event-stream, application/x-ndjson;q=0.9, */*;q=0.5"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSender:
    """An endpoint's connections, routing key, retry bounds and default timeout."""

    engine: Engine
    workers: ConnectionPool
    keys: KeyProvider
    endpoint_name: str
    retry: RetryPolicy
    timeout_seconds: float

    async def send(
        self, request: Request, *, progress: Progress | None = None, session: SessionWorker | None = None
    ) -> Answer:
        """Send a request and read the whole answer.

        Raises:
            StokerError: see `stoker.errors`.
        """
        answer, _ = await self.send_and_locate(request, progress=progress, session=session)
        return answer

    async def send_and_locate(
        self, request: Request, *, progress: Progress | None = None, session: SessionWorker | None = None
    ) -> tuple[Answer, Placement]:
        """As `send`; returns also the worker that answered."""
        attempts = self._attempts(request, progress=progress, session=session)

        async def read(reply: Reply, placement: Placement) -> tuple[Answer, Placement]:
            await reply.response.aread()
            return make_answer(reply.response, attempts, placement), placement

        result = await attempts.run(read, timeout_seconds=self._timeout(request))
        attempts.progress.status = RequestStatus.COMPLETE
        attempts.end_trace()
        return result

    async def find_worker(self, request: Request) -> Placement:
        """Wait for a worker without sending it anything.

        Raises:
            StokerError: see `stoker.errors`.
        """
        return await self._attempts(request).find_worker(timeout_seconds=self._timeout(request))

    def stream(
        self, request: Request, *, idle_timeout: float | None, session: SessionWorker | None = None
    ) -> Stream:
        """A streamed answer; nothing is sent before the stream is entered."""
        timeout_seconds = self._timeout(request)
        return Stream(
            self._attempts(request, session=session, accept=STREAM_ACCEPT),
            timeout_seconds=timeout_seconds,
            idle_seconds_max=timeout_seconds if idle_timeout is None else idle_timeout,
        )

    def _timeout(self, request: Request) -> float:
        seconds = self.timeout_seconds if request.timeout is None else request.timeout
        if not seconds > 0:
            raise Invalid(f"timeout is {seconds} s; expected more than 0")
        return seconds

    def _attempts(
        self,
        request: Request,
        *,
        progress: Progress | None = None,
        session: SessionWorker | None = None,
        accept: str = "*/*",
    ) -> RequestAttempts:
        if not 0 <= request.cost <= COST_MAX:
            raise Invalid(
                f"cost is {request.cost}; expected a number from 0 to {COST_MAX:g}, in the endpoint's units of work"
            )
        if len(request.affinity) > AFFINITY_CHARS_MAX:
            raise Invalid(
                f"affinity has {len(request.affinity)} characters; expected at most {AFFINITY_CHARS_MAX}"
            )
        key = request.idempotency_key or uuid.uuid4().hex
        if not key.isascii() or not key.isprintable() or len(key) > 255:
            raise Invalid("the idempotency key must be printable ASCII of at most 255 characters")
        return RequestAttempts(
            engine=self.engine,
            workers=self.workers,
            policy=self.retry if request.retry else NO_RETRY,
            keys=self.keys,
            endpoint=self.endpoint_name,
            path=check_path(request.route),
            body=make_body(request),
            cost=request.cost,
            idempotency_key=key,
            affinity=request.affinity,
            progress=progress or Progress(on_wait=request.on_wait),
            accept=accept,
            session=session,
        )
