"""The client: one engine, one key, and two connection pools."""

from __future__ import annotations

import os
import ssl
import sys
import warnings
from functools import partial
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from stoker.endpoint import Endpoint, RoutingKey
from stoker.engine import Engine
from stoker.errors import EndpointNotFound, Invalid, StokerError
from stoker.management.endpoints import Endpoints
from stoker.management.keys import Keys
from stoker.management.marketplace import Marketplace
from stoker.management.records import EndpointRecord
from stoker.management.workergroups import Workergroups
from stoker.proxies import ProxySettings
from stoker.requests.retry.backoff import RetryPolicy
from stoker.requests.sender import RequestSender
from stoker.requests.submission import BackgroundRequests
from stoker.settings import read_settings
from stoker.transport import ConnectionPool
from stoker.trust import Trust
from stoker_wire.errors.problem import describe
from stoker_wire.parsing.ids import read_id
from stoker_wire.route import RouteRequest

TIMEOUT_SECONDS = 600.0
"""Default bound on a request, waiting and retries included."""

ENDPOINT_KEY_PREFIX = "sk-ep-"


class Serverless:
    """The client: `async with stoker.Serverless() as client: endpoint = await client.get_endpoint("llm")`.

    Address and key come from the arguments, else from STOKER_URL and STOKER_API_KEY, else from the config file.
    Engines and workers that are not on this machine are reached through the proxies of HTTP_PROXY, HTTPS_PROXY,
    ALL_PROXY and NO_PROXY.

    Args:
        api_key: an account's key; or an endpoint's key, which can route to that endpoint only.
        url: the engine's address.
        timeout: default for the timeout of requests, s.
        retry: bounds on retries.
        verify: check TLS certificates of engine and workers: True, False, or an `ssl.SSLContext` with your own CA.
            True trusts the system's authorities, those of the file STOKER_CA_FILE, and for workers the engine's own.
        verify_workers: the same for workers alone; None: as `verify`.
        connections_max: sockets per pool (one to the engine, one to the workers); None: half of the process's limit.

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
        proxies = ProxySettings.from_environment(os.environ)
        ca_file = settings.ca_file
        self._engine_pool = ConnectionPool(
            verify=Trust(ca_file) if verify is True else verify,
            connections_max=connections_max,
            proxies=proxies,
        )
        self._engine = Engine(settings.url, self._engine_pool, self.retry)
        checks = verify if verify_workers is None else verify_workers
        self._workers_pool = ConnectionPool(
            verify=Trust(ca_file, fetch=self._engine.worker_authority) if checks is True else checks,
            connections_max=connections_max,
            proxies=proxies,
        )
        self.endpoints = Endpoints(self._engine, settings.api_key)
        self.keys = Keys(self._engine, settings.api_key, self.endpoints)
        self.workergroups = Workergroups(self._engine, settings.api_key)
        self.marketplace = Marketplace(self._engine, settings.api_key)
        self._background = BackgroundRequests()

    def __repr__(self) -> str:
        return f"<Serverless {self.url}>"

    def __del__(self) -> None:
        pools = [getattr(self, name, None) for name in ("_engine_pool", "_workers_pool")]
        if any(pool.connections for pool in pools if pool is not None) and not sys.is_finalizing():
            warnings.warn(
                f"{self!r} was dropped with open connections; use `async with` or `await client.aclose()`",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel the requests in the background and close every connection."""
        await self._background.cancel_all()
        await self._engine_pool.aclose()
        await self._workers_pool.aclose()

    async def get_endpoint(self, endpoint: str | int) -> Endpoint:
        """A handle on an endpoint, by name or id. With an endpoint's key the name is not looked up.

        Raises:
            EndpointNotFound: the engine has no such endpoint.
            Unauthorised: the engine refused the key.
            Invalid: not a valid endpoint name.
        """
        if self._key.startswith(ENDPOINT_KEY_PREFIX):
            if isinstance(endpoint, int):
                raise Invalid(
                    "an endpoint's key routes by name; give the endpoint's name, or use an account's key"
                )
            _check_name(endpoint)
            number = self._key.removeprefix(ENDPOINT_KEY_PREFIX).partition("-")[0]
            return self._handle(endpoint, read_id(number) or 0, self._key)
        return self._handle_of(await self.endpoints.get(endpoint))

    async def get_endpoints(self) -> list[Endpoint]:
        """Handles on all endpoints of this account."""
        return [self._handle_of(record) for record in await self.endpoints.list()]

    def _handle_of(self, record: EndpointRecord) -> Endpoint:
        """A handle from a record. An engine that sends no endpoint key accepts the account's key for routing."""
        return self._handle(record.endpoint_name, record.id, record.key or self._key)

    def _handle(self, name: str, endpoint_id: int, key: str) -> Endpoint:
        sender = RequestSender(
            engine=self._engine,
            workers=self._workers_pool,
            keys=RoutingKey(key, partial(self._look_up_key, name)),
            endpoint_name=name,
            retry=self.retry,
            timeout_seconds=self.timeout_seconds,
        )
        return Endpoint(
            name=name,
            endpoint_id=endpoint_id,
            sender=sender,
            management=self.endpoints,
            background=self._background,
        )

    async def _look_up_key(self, name: str) -> str | None:
        """The endpoint's present routing key; None if this client's key cannot read it.

        Raises:
            EndpointNotFound: the endpoint was deleted.
        """
        if self._key.startswith(ENDPOINT_KEY_PREFIX):
            return None
        try:
            return (await self.endpoints.get(name)).key
        except EndpointNotFound:
            raise
        except StokerError:  # the caller then raises the error of the refused request, which is more specific
            return None


def _check_name(name: str) -> None:
    """Refuse an impossible name at once, because a name that comes with an endpoint's key is not looked up."""
    try:
        RouteRequest(endpoint=name)
    except ValidationError as fault:
        raise Invalid(f"{name!r:.80} can be no endpoint's name: {describe(fault)}") from None
