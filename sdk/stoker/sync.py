"""The client for programs without an event loop: the same names, without `await`.

Every call runs in the async client on the event loop of one background thread. Threads may share a client.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, Unpack

from stoker.client import Serverless
from stoker.endpoint import Endpoint
from stoker.loop_thread import LoopThread
from stoker.management.records import EndpointRecord, Logs, WorkerRecord
from stoker.management.sync import SyncEndpoints, SyncKeys, SyncMarketplace, SyncWorkergroups
from stoker.requests.answer import Answer
from stoker.requests.events import Event
from stoker.requests.job import Job
from stoker.requests.progress import RequestStatus, Wait
from stoker.requests.request import Request, RequestOptions
from stoker.requests.session import Session, SessionOptions
from stoker.requests.stream import Stream
from stoker.requests.submission import Submission
from stoker.requests.timing import Timing


class SyncStream:
    """See `stoker.Stream`."""

    def __init__(self, loop: LoopThread, stream: Stream) -> None:
        self._loop = loop
        self._stream = stream

    def __enter__(self) -> Self:
        self._loop.run(self._stream.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run(self._stream.aclose())

    def __iter__(self) -> Iterator[Event]:
        return self._loop.iterate(aiter(self._stream))

    def bytes(self) -> Iterator[bytes]:
        """The body, unchanged, chunk by chunk."""
        return self._loop.iterate(self._stream.bytes())

    @property
    def status(self) -> int:
        """The worker's HTTP status."""
        return self._stream.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The worker's HTTP headers."""
        return self._stream.headers

    @property
    def timing(self) -> Timing:
        """The parts of the latency."""
        return self._stream.timing

    @property
    def worker_id(self) -> int:
        """The marketplace's instance id."""
        return self._stream.worker_id

    @property
    def worker_url(self) -> str:
        """The worker that sends the stream."""
        return self._stream.worker_url


class SyncSession:
    """See `stoker.Session`."""

    def __init__(self, loop: LoopThread, session: Session) -> None:
        self._loop = loop
        self._session = session

    def __enter__(self) -> Self:
        self._loop.run(self._session.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run(self._session.__aexit__(kind, fault, trace))

    @property
    def id(self) -> str:
        """The worker's name for the session."""
        return self._session.id

    @property
    def is_open(self) -> bool:
        """Whether the session can be used, as far as the client knows."""
        return self._session.is_open

    def request(self, route: str, payload: Any = None, **options: Unpack[RequestOptions]) -> Answer:
        """As `SyncEndpoint.request`, on the session's worker."""
        return self._loop.run(self._session.request(route, payload, **options))

    def stream(
        self,
        route: str,
        payload: Any = None,
        *,
        idle_timeout: float | None = None,
        **options: Unpack[RequestOptions],
    ) -> SyncStream:
        """As `SyncEndpoint.stream`, on the session's worker."""
        return SyncStream(
            self._loop, self._session.stream(route, payload, idle_timeout=idle_timeout, **options)
        )


class SyncJob:
    """See `stoker.Job`."""

    def __init__(self, loop: LoopThread, job: Job) -> None:
        self._loop = loop
        self._job = job

    def __enter__(self) -> Self:
        self._loop.run(self._job.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run(self._job.__aexit__(kind, fault, trace))

    @property
    def url(self) -> str:
        """The base address of the job's calls at the worker."""
        return self._job.url

    @property
    def engine_url(self) -> str:
        """The base address of the same calls through the engine."""
        return self._job.engine_url


class SyncSubmission:
    """See `stoker.Submission`; `result()` waits."""

    def __init__(self, loop: LoopThread, submission: Submission) -> None:
        self._loop = loop
        self._submission = submission
        self._future: Future[Answer] = loop.start(self._outcome())

    async def _outcome(self) -> Answer:
        return await self._submission

    def __repr__(self) -> str:
        return repr(self._submission)

    @property
    def status(self) -> RequestStatus:
        """The request's state."""
        return self._submission.status

    @property
    def wait(self) -> Wait | None:
        """Why the request waits; None while it does not wait."""
        return self._submission.wait

    def done(self) -> bool:
        """Whether the request was answered, has failed or was cancelled."""
        return self._submission.done()

    def result(self, timeout: float | None = None) -> Answer:
        """The answer, or its error; `timeout` bounds only this wait, in seconds."""
        return self._loop.wait(self._future, timeout)

    def cancel(self) -> bool:
        """Cancel the request. False if it has already ended."""

        async def cancel() -> bool:
            return self._submission.cancel()

        return self._loop.run(cancel())


class SyncEndpoint:
    """See `stoker.Endpoint`."""

    def __init__(self, loop: LoopThread, endpoint: Endpoint) -> None:
        self._loop = loop
        self._endpoint = endpoint

    def __repr__(self) -> str:
        return repr(self._endpoint)

    @property
    def id(self) -> int:
        """The endpoint's id on the engine."""
        return self._endpoint.id

    @property
    def name(self) -> str:
        """Its name."""
        return self._endpoint.name

    def request(self, route: str, payload: Any = None, **options: Unpack[RequestOptions]) -> Answer:
        """Send a request and wait for the whole answer; options as of `Endpoint.request`."""
        return self._loop.run(self._endpoint.request(route, payload, **options))

    def stream(
        self,
        route: str,
        payload: Any = None,
        *,
        idle_timeout: float | None = None,
        **options: Unpack[RequestOptions],
    ) -> SyncStream:
        """A streamed answer: `with endpoint.stream(…) as stream: for event in stream: …`."""
        return SyncStream(
            self._loop, self._endpoint.stream(route, payload, idle_timeout=idle_timeout, **options)
        )

    def session(self, **options: Unpack[SessionOptions]) -> SyncSession:
        """A worker reserved for one caller: `with endpoint.session(cost=…, lifetime=…) as session: …`."""
        return SyncSession(self._loop, self._endpoint.session(**options))

    def job(self, **options: Any) -> SyncJob:
        """One worker for the calls of one job: `with endpoint.job(cost=…) as job: … job.url …`."""
        return SyncJob(self._loop, self._endpoint.job(**options))

    def map(self, requests: Iterable[Request], **options: Any) -> Iterator[Any]:
        """The answers to many requests; options as of `Endpoint.map`."""
        return self._loop.iterate(self._endpoint.map(requests, **options))

    def submit(self, route: str, payload: Any = None, **options: Unpack[RequestOptions]) -> SyncSubmission:
        """`request` in the background."""

        async def submit() -> Submission:
            return self._endpoint.submit(route, payload, **options)

        return SyncSubmission(self._loop, self._loop.run(submit()))

    def record(self) -> EndpointRecord:
        """Its parameters now."""
        return self._loop.run(self._endpoint.record())

    def update(self, **parameters: Any) -> Self:
        """Change parameters; the others stay as they are."""
        self._loop.run(self._endpoint.update(**parameters))
        return self

    def delete(self) -> None:
        """Delete the endpoint: every worker is destroyed."""
        self._loop.run(self._endpoint.delete())

    def workers(self) -> list[WorkerRecord]:
        """Its workers."""
        return self._loop.run(self._endpoint.workers())

    def logs(self, *, tail: int | None = None) -> Logs:
        """Its log, in four levels of detail."""
        return self._loop.run(self._endpoint.logs(tail=tail))

    def status(self) -> dict[str, Any]:
        """Load against capacity, the queue, the workers, and why requests wait."""
        return self._loop.run(self._endpoint.status())

    def decisions(self, *, tail: int = 20) -> list[dict[str, Any]]:
        """The last decisions, each with its reason."""
        return self._loop.run(self._endpoint.decisions(tail=tail))

    def costs(self) -> dict[str, Any]:
        """Dollars by worker state."""
        return self._loop.run(self._endpoint.costs())


class SyncServerless:
    """`with stoker.SyncServerless() as client: …`; arguments as of `stoker.Serverless`."""

    def __init__(self, api_key: str | None = None, *, url: str | None = None, **options: Any) -> None:
        self._client = Serverless(api_key, url=url, **options)
        self._loop = LoopThread(self._client.aclose)
        self.endpoints = SyncEndpoints(self._loop, self._client.endpoints)
        self.keys = SyncKeys(self._loop, self._client.keys)
        self.workergroups = SyncWorkergroups(self._loop, self._client.workergroups)
        self.marketplace = SyncMarketplace(self._loop, self._client.marketplace)

    def __repr__(self) -> str:
        return f"<SyncServerless {self._client.url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel running work, close every connection, end the thread; closing twice does nothing."""
        self._loop.close()

    def get_endpoint(self, endpoint: str | int) -> SyncEndpoint:
        """A handle on an endpoint, by name or id."""
        return SyncEndpoint(self._loop, self._loop.run(self._client.get_endpoint(endpoint)))

    def get_endpoints(self) -> list[SyncEndpoint]:
        """Handles on all endpoints of this account."""
        return [SyncEndpoint(self._loop, each) for each in self._loop.run(self._client.get_endpoints())]
