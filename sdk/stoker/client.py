"""The client: one engine, one key, two pools of connections."""

from __future__ import annotations

import asyncio
import ssl
import sys
import warnings
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import ValidationError

from stoker.endpoint import TIMEOUT_SECONDS, Endpoint
from stoker.engine import Engine
from stoker.errors import EndpointNotFound, Invalid, StokerError
from stoker.management.endpoints import Endpoints, Workergroups
from stoker.management.records import EndpointRecord
from stoker.requests.answer import Answer
from stoker.requests.backoff import RetryPolicy
from stoker.settings import read_settings
from stoker.transport import Pool
from stoker_wire.parsing.ids import read_id
from stoker_wire.problem import describe
from stoker_wire.route import RouteRequest

T = TypeVar("T")

ENDPOINT_KEY_PREFIX = "sk-ep-"


class Serverless:
    """The way in: `async with stoker.Serverless() as client: endpoint = await client.get_endpoint("llm")`.

    Address and key come from the arguments, else from STOKER_URL and STOKER_API_KEY, else from the config file.

    Args:
        api_key: an account's key; or an endpoint's key, which routes to that endpoint and does nothing else.
        url: the engine's address.
        timeout: seconds that a request may take in all, unless it says otherwise.
        retry: bounds on repetition.
        verify: check TLS certificates of engine and workers: True, False, or an `ssl.SSLContext` with your own CA.
        verify_workers: the same for workers alone; None: as `verify`.
        connections_max: sockets per pool (one to the engine, one to the workers); None: what the process may open.

    Raises:
        Invalid: no address or no key.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        url: str | None = None,
        timeout: float = TIMEOUT_SECONDS,
        retry: RetryPolicy | None = None,
        verify: bool | ssl.SSLContext = True,
        verify_workers: bool | ssl.SSLContext | None = None,
        connections_max: int | None = None,
    ) -> None:
        settings = read_settings(url, api_key)
        if not timeout > 0:
            raise Invalid(f"timeout is {timeout} s; expected more than 0")
        if connections_max is not None and connections_max < 1:
            raise Invalid(f"connections_max is {connections_max}; expected at least 1")
        self.url = settings.url
        self.timeout_seconds = timeout
        self.retry = retry or RetryPolicy()
        self._key = settings.api_key
        self._engine_pool = Pool(verify=verify, connections_max=connections_max)
        self.workers_pool = Pool(
            verify=verify if verify_workers is None else verify_workers, connections_max=connections_max
        )
        self.engine = Engine(settings.url, self._engine_pool, self.retry)
        self.endpoints = Endpoints(self.engine, settings.api_key)
        self.workergroups = Workergroups(self.engine, settings.api_key)
        self._background: set[asyncio.Task[Answer]] = set()

    def __repr__(self) -> str:
        return f"<Serverless {self.url}>"

    def __del__(self) -> None:
        pools = [getattr(self, name, None) for name in ("_engine_pool", "workers_pool")]
        if any(pool.connections for pool in pools if pool is not None) and not sys.is_finalizing():
            said = f"{self!r} was dropped with open connections; use `async with` or `await client.aclose()`"
            warnings.warn(said, ResourceWarning, stacklevel=2, source=self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel what runs in the background and close every connection."""
        loop = asyncio.get_running_loop()
        background = [task for task in self._background if task.get_loop() is loop]
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await self._engine_pool.aclose()
        await self.workers_pool.aclose()

    async def get_endpoint(self, endpoint: str | int) -> Endpoint:
        """A handle on an endpoint, by name or id. With an endpoint's key, its name is taken at its word.

        Raises:
            EndpointNotFound: there is none.
            Unauthorised: the engine does not know the key.
            Invalid: this can be no endpoint's name.
        """
        if self._key.startswith(ENDPOINT_KEY_PREFIX):
            if isinstance(endpoint, int):
                raise Invalid(
                    "an endpoint's key routes by name; give the endpoint's name, or use an account's key"
                )
            _check_name(endpoint)
            number = self._key.removeprefix(ENDPOINT_KEY_PREFIX).partition("-")[0]
            return Endpoint(self, name=endpoint, endpoint_id=read_id(number) or 0, key=self._key)
        record = await self.endpoints.get(endpoint)
        return self.endpoint_of(record)

    async def get_endpoints(self) -> list[Endpoint]:
        """Handles on all endpoints of this account."""
        return [self.endpoint_of(record) for record in await self.endpoints.list()]

    def endpoint_of(self, record: EndpointRecord) -> Endpoint:
        """A handle from a record. An engine that gives no endpoint key takes the account's for routing."""
        return Endpoint(self, name=record.endpoint_name, endpoint_id=record.id, key=record.key or self._key)

    async def lookup(self, name: str) -> EndpointRecord | None:
        """The endpoint's present record, or None if this key cannot see one."""
        if self._key.startswith(ENDPOINT_KEY_PREFIX):
            return None
        try:
            return await self.endpoints.get(name)
        except EndpointNotFound:
            raise
        except StokerError:  # the caller has an error of its own to raise, nearer to what was asked
            return None

    def keep(self, work: Coroutine[Any, Any, Answer]) -> asyncio.Task[Answer]:
        """Run work in the background until it ends or the client is closed."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._let_go)
        return task

    def _let_go(self, task: asyncio.Task[Answer]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # an answer nobody awaits is no warning of the event loop's


def _check_name(name: str) -> None:
    """Nobody looks a name up that is taken at its word: what cannot be asked for is said at once."""
    try:
        RouteRequest(endpoint=name)
    except ValidationError as fault:
        raise Invalid(f"{name!r:.80} can be no endpoint's name: {describe(fault)}") from None
