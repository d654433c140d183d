"""Whether this engine lives, and whether it should be sent traffic."""

from aiohttp import web

from engine.api.parsing import answer
from engine.engine import Engine
from engine.openapi import shapes
from engine.openapi.declarations import ok
from stoker_wire.openapi import Reply, handles


class HealthApi:
    """`/healthz` and `/readyz`, open to everyone and saying nothing about anyone."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @handles("GET /healthz", tag="health", replies=ok(shapes.Healthy))
    async def healthz(self, request: web.Request) -> web.Response:
        """The process answers."""
        return answer({"ok": True, "engine_id": self._engine.engine_id})

    @handles(
        "GET /readyz",
        tag="health",
        replies={
            200: Reply(about="Ready", type=shapes.Readiness),
            503: Reply(about="Not ready, and why", type=shapes.Readiness),
        },
    )
    async def readyz(self, request: web.Request) -> web.Response:
        """The endpoints are known and Temporal answers; 503 with the reason otherwise."""
        reason = self._engine.readiness()
        if reason:
            return answer({"ready": False, "reason": reason}, 503, {"Retry-After": "2"})
        return answer({"ready": True, "reason": ""})
