"""`POST /webhooks/vast/`: the marketplace announces a change, and the endpoints' instances are listed at once."""

import asyncio
import time
from datetime import timedelta

import structlog
from aiohttp import web

from engine.api.parsing import read_body
from engine.engine import Engine
from engine.routing.endpoint import Endpoint
from engine.temporal.rpc_errors import TEMPORAL_FAULTS, is_gone, rpc_error_text
from market.vast.notifications import (
    AGE_SECONDS_MAX,
    BODY_BYTES_MAX,
    SIGNATURE,
    TIMESTAMP,
    MarketEvent,
    NotAuthentic,
    read_event,
)
from stoker_wire.control import LOOK_NOW
from stoker_wire.errors.problem import Problem
from stoker_wire.http.openapi import Parameter, Reply, handles

log = structlog.get_logger(__name__)

ANSWER_SECONDS_MAX = 8.0
"""Vast.ai waits for ten seconds, then repeats the call."""
_SIGNALS_AT_ONCE = 16
_EVENTS_KNOWN_MAX = 10_000
_RPC = timedelta(seconds=5)
_HEADERS = (
    Parameter(name=TIMESTAMP, about="When it was signed, Unix seconds", where="header", required=True),
    Parameter(name=SIGNATURE, about="`sha256=` and the signature in hex", where="header", required=True),
)


class MarketEventsApi:
    """Takes signed events of the marketplace as a hint to list instances, never as their state."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, float] = {}
        """Events that were handled, by id, and until when a repetition is possible, Unix seconds."""

    @handles(
        "POST /webhooks/vast/",
        tag="marketplace",
        parameters=_HEADERS,
        body_content_type="application/json",
        replies={204: Reply(about="Accepted, or known already", content_type="")},
        refuses=(400, 401, 404, 408, 413, 503),
    )
    async def take(self, request: web.Request) -> web.Response:
        """A notification webhook of Vast.ai. The instances of the endpoints concerned are listed at once."""
        secret, now = self._engine.settings.market_webhook_secret, time.time()
        if not secret:
            raise Problem(
                404,
                "no_webhook_secret",
                "this engine takes no webhooks: it has no STOKER_MARKET_WEBHOOK_SECRET",
            )
        body = await read_body(request)
        if len(body) > BODY_BYTES_MAX:
            raise Problem(413, "body_too_large", f"the body may have {BODY_BYTES_MAX} bytes, not {len(body)}")
        try:
            event = read_event(request.headers, body, secret, now)
        except NotAuthentic as fault:
            raise Problem(401, "not_authentic", f"{fault}") from None
        except ValueError as fault:
            raise Problem(400, "malformed_json", f"{fault}") from None
        if event.id not in self._known:
            await self._look(event)
            self._remember(event, now)
        return web.Response(status=204)

    async def _look(self, event: MarketEvent) -> None:
        """Let the endpoints with the named instances list them; without one, every endpoint with instances.

        Raises:
            Problem: 503, Temporal did not take the signals; Vast.ai repeats the event.
        """
        concerned = [each for each in self._engine.directory if _is_concerned(each, event)]
        turn = asyncio.Semaphore(_SIGNALS_AT_ONCE)

        async def signal(endpoint: Endpoint) -> None:
            async with turn:
                try:
                    handle = self._engine.client.get_workflow_handle(endpoint.workflow_id)
                    await handle.signal(LOOK_NOW, rpc_timeout=_RPC)
                except TEMPORAL_FAULTS as fault:
                    if not is_gone(fault):
                        raise

        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                await asyncio.gather(*map(signal, concerned))
        except TEMPORAL_FAULTS as fault:
            log.warning("market_event_not_taken", kind=event.kind, error=rpc_error_text(fault))
            raise Problem(
                503, "temporal_unavailable", "Temporal does not answer; send the event again"
            ) from None
        log.info("market_event", kind=event.kind, event_id=event.id, endpoints=len(concerned))

    def _remember(self, event: MarketEvent, now: float) -> None:
        self._known = {each: until for each, until in self._known.items() if until > now}
        if len(self._known) < _EVENTS_KNOWN_MAX:
            # A repeated event has a new signature. It comes within twice the time for which the first one is valid.
            self._known[event.id] = now + 2 * AGE_SECONDS_MAX


def _is_concerned(endpoint: Endpoint, event: MarketEvent) -> bool:
    ids = {worker.instance_id for worker in endpoint.workers.values() if worker.listed}
    return bool(ids & event.instance_ids if event.instance_ids else ids - {0})
