"""Liveness and readiness of the engine."""

from aiohttp import web

from engine.api.parsing import answer
from engine.engine import Engine
from engine.openapi import live_shapes
from engine.openapi.declarations import ok
from stoker_wire.http.openapi import Reply, handles


class HealthApi:
    """`/healthz` and `/readyz`, without authentication and without information about accounts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @handles("GET /healthz", tag="health", replies=ok(live_shapes.Healthy))
    async def healthz(self, request: web.Request) -> web.Response:
        """The process is alive."""
        return answer({"ok": True, "engine_id": self._engine.engine_id})

    @handles(
        "GET /readyz",
        tag="health",
        replies={
            200: Reply(about="Ready", type=live_shapes.Readiness),
            503: Reply(about="Not ready, and why", type=live_shapes.Readiness),
        },
    )
    async def readyz(self, request: web.Request) -> web.Response:
        """The endpoints are known and Temporal answers; otherwise 503 with the reason."""
        reason = self._engine.readiness()
        if reason:
            return answer({"ready": False, "reason": reason}, 503, {"Retry-After": "2"})
        return answer({"ready": True, "reason": ""})
