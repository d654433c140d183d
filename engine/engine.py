"""The engine without its HTTP: what the handlers share, and the tasks that run beside them."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from temporalio.client import Client

from activities.safety_nets import SafetyNets
from engine.api.keys import Accounts
from engine.request_log import RequestLog
from engine.routing.directory import Directory, release
from engine.routing.dispatcher import Dispatcher
from engine.routing.endpoint import Endpoint
from engine.routing.ticket_issuer import TicketIssuer
from engine.settings import EngineSettings
from engine.temporal.endpoint_watcher import EndpointWatcher
from engine.temporal.log_throttle import LogThrottle
from engine.temporal.rpc_errors import TEMPORAL_FAULTS
from engine.temporal.signal_sender import SignalSender
from stoker_wire.problem import Problem

log = structlog.get_logger("engine")

SWEEP_SECONDS = 1.0
SLICE = 50
"""Endpoints looked after at a stretch, a millisecond or two: then whoever calls has a turn."""
PUMP_SECONDS = 0.02
"""A line is not looked at more often than so because of time alone."""
_MISSING_SECONDS = 1.0
"""A client that keeps asking for a name that is not there must not become a load on Temporal."""
_MISSING_MAX = 1000
_INDEX_BITS = 53
"""JSON numbers are exact up to 2^53 everywhere."""


def draw_index() -> int:
    """A request index or reqnum, 1 to 2^53 - 1. Drawn, not counted: no two engines ever have to agree on it."""
    return secrets.randbits(_INDEX_BITS) or 1


class Engine:
    """Soft state of all endpoints, and the loops that keep it true. Any of it can be lost at any time."""

    def __init__(self, settings: EngineSettings, client: Client) -> None:
        self.settings = settings
        self.client = client
        self.engine_id = f"engine-{secrets.token_hex(6)}"
        self.started_at = time.time()
        self.accounts = Accounts(settings.accounts, settings.accounts_previous)
        self.tickets = TicketIssuer(
            secrets=settings.secrets, rsa_private_key_pem=settings.rsa_private_key_pem
        )
        self.router = Dispatcher(
            limits=settings.limits, timing=settings.timing, started_at=self.started_at, draw=draw_index
        )
        self.directory = Directory(
            secrets=settings.secrets, timing=settings.timing, limits=settings.limits, router=self.router
        )
        self.watch = EndpointWatcher(client, self.directory, timing=settings.timing)
        self.herald = SignalSender(client, self.directory, engine_id=self.engine_id)
        self.router.urgent = self.herald.flush
        self.router.later = self._pump_later
        self.request_log: RequestLog | None = None
        if settings.request_log is not None:
            self.request_log = RequestLog(settings.request_log)
            self.router.ended = self.request_log.note
        self.herald.on_gone = self._check_gone
        self._missing: dict[str, float] = {}
        self.held_calls = 0
        self._pumps: dict[str, asyncio.TimerHandle] = {}
        """When each endpoint's line is looked at again without any news."""
        self.stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Engine {self.engine_id} {self.directory!r}, {self.held_calls} calls held>"

    async def start(self) -> None:
        """Look at Temporal once, then keep looking. An engine starts without Temporal too, and is not ready then."""
        await self.watch.look()
        for name, work in (("watch", self.watch.run), ("herald", self.herald.run), ("sweep", self._sweep)):
            self._run(_for_ever(work, name), name)
        if self.request_log is not None:
            self._run(_for_ever(self.request_log.run, "request_log"), "request_log")
        if self.settings.sweep is not None:
            nets = SafetyNets(
                self.client, self.settings.sweep, every_seconds=self.settings.sweep_ensure_seconds
            )
            self._run(_for_ever(nets.run, "safety_nets"), "safety_nets")
        log.info("engine_started", engine_id=self.engine_id, endpoints=len(self.directory))

    def stop_holding(self) -> None:
        """End every held call, so that clients come again, to another engine or to this one's successor."""
        self.stopping = True
        for endpoint in self.directory:
            release(endpoint)

    async def close(self) -> None:
        """Stop the tasks; nothing but the record of requests has to be saved."""
        self.stop_holding()
        for timer in self._pumps.values():
            timer.cancel()
        self._pumps.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.herald.close()
        if self.request_log is not None:
            for endpoint in self.directory:
                self.router.close_books(endpoint)
            await self.request_log.flush()
        log.info("engine_stopped", engine_id=self.engine_id)

    def readiness(self) -> str:
        """Why the engine is not ready; empty: it is."""
        if self.stopping:
            return "the engine is stopping"
        if not self.watch.knows_all:
            error = self.watch.last_error or "no answer yet"
            return f"the endpoints have not been read from Temporal yet ({error})"
        if self.watch.stale():
            return f"Temporal has not answered for {time.time() - self.watch.looked_at:.0f} s; routing goes on with what is known"
        return ""

    async def find(self, name: str) -> Endpoint | None:
        """The endpoint of this name, asking Temporal when it is not known: it may be a second old.

        Raises:
            RPCError or another of TEMPORAL_FAULTS: Temporal does not answer, so nobody knows.
        """
        endpoint = self.directory.named(name)
        if endpoint is not None or time.monotonic() < self._missing.get(name, 0.0):
            return endpoint
        await self.watch.refresh(name)
        endpoint = self.directory.named(name)
        if endpoint is None:
            if len(self._missing) >= _MISSING_MAX:
                self._missing.clear()
            self._missing[name] = time.monotonic() + _MISSING_SECONDS
        return endpoint

    async def of_name(self, name: str, owner: str) -> Endpoint:
        """An account's endpoint by name, asking Temporal when it is not known.

        Raises:
            Problem: 404, whether it is another's or nobody's.
            RPCError or another of TEMPORAL_FAULTS: Temporal does not answer, so nobody knows.
        """
        endpoint = await self.find(name)
        if endpoint is None or endpoint.memo.owner != owner:
            raise Problem(404, "no_such_endpoint", f"there is no endpoint named {name[:80]!r}")
        return endpoint

    def _pump_later(self, endpoint: Endpoint, seconds: float) -> None:
        """A busy worker is expected to be nearly free then; the sweep looks once a second anyway."""
        if seconds >= SWEEP_SECONDS:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + max(seconds, PUMP_SECONDS)
        timer = self._pumps.get(endpoint.name)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._pumps[endpoint.name] = loop.call_at(due, self._pump, endpoint)

    def _pump(self, endpoint: Endpoint) -> None:
        self._pumps.pop(endpoint.name, None)
        if not endpoint.gone:
            self.router.pump(endpoint, time.time())

    def _check_gone(self, endpoint: Endpoint) -> None:
        self._run(self._refresh_quietly(endpoint.name), f"look for {endpoint.name}")

    async def _refresh_quietly(self, name: str) -> None:
        with contextlib.suppress(*TEMPORAL_FAULTS):
            await self.watch.refresh(name)

    async def _sweep(self) -> None:
        skipped = LogThrottle("sweep")
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for number, endpoint in enumerate(self.directory, start=1):
                try:
                    self.router.sweep(endpoint, time.time())
                except Exception as fault:  # noqa: BLE001 - whatever is wrong with it, the next one has its turn
                    skipped.say(endpoint.name, fault)
                if number % SLICE == 0:
                    await asyncio.sleep(0)

    def _run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _for_ever(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    """A loop that a fault ended would leave an engine that looks alive and is blind: say it, and go on."""
    while True:
        try:
            await work()
        except Exception as fault:  # noqa: BLE001 - the last line of a loop that must not end
            log.error("engine_loop_failed", loop=name, error=f"{type(fault).__name__}: {fault}"[:300])
        await asyncio.sleep(SWEEP_SECONDS)
