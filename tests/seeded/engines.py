"""The real engine, without its sockets: handlers are called with bodies, and its clients' connections can break."""

import asyncio
import json
import time
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from activities.secrets import DeploymentSecrets
from engine.api.parsing import FastRouteRequest
from engine.api.route_api import RouteApi
from engine.api.worker_api import WorkerApi
from engine.engine import Engine
from engine.settings import EngineSettings
from stoker_wire.errors.problem import Problem
from stoker_wire.http1.request import Request
from tests.seeded.worker_processes import ConnectionLost, Reply

SECRETS = DeploymentSecrets(
    hmac_secret=b"an hmac secret of seeded worlds",
    named={"HF_TOKEN": "hf_token_of_seeded_worlds"},
    report_address="http://engine:8080",
)


@cache
def signing_key() -> bytes:
    """One key for all worlds of this process; no decision depends on it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class EngineHost:
    """One engine process."""

    def __init__(self, client: Any) -> None:
        settings = EngineSettings(secret=SECRETS.hmac_secret, rsa_private_key_pem=signing_key())
        self.engine = Engine(
            settings, client, now=time.time
        )  # the simulated clock, which has replaced `time.time`
        self.alive = True
        self._worker_api = WorkerApi(self.engine)
        self._route_api = RouteApi(self.engine)
        self._calls: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        await self.engine.start()

    def kill(self) -> None:
        """`kill -9`: every open call breaks."""
        self.alive = False
        for task in (*self.engine._tasks, *self.engine.signal_sender._sending.values(), *self._calls):
            task.cancel()

    async def stop(self) -> None:
        """SIGTERM."""
        self.alive = False
        await self.engine.close()

    async def hear(self, what: str, body: dict[str, Any]) -> bool:
        """`POST /worker_status/` or `/delete_requests/`; True if it was accepted."""
        if not self.alive:
            return False
        request = Request()
        request.path, request.body = f"/{what}/".encode(), json.dumps(body).encode()
        try:
            getattr(self._worker_api, what)(request, Reply())
        except Problem:
            return False
        return True

    async def route(self, asked: FastRouteRequest) -> dict[str, Any]:
        """`POST /route/` of a client with the endpoint's key."""
        endpoint = self.engine.directory.named(asked.endpoint)
        if not self.alive or endpoint is None:
            raise ConnectionLost("the engine is down, or has just started")
        call = asyncio.get_running_loop().create_task(self._route_api.route(endpoint, asked), name="route")
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        await asyncio.wait([call])
        if call.cancelled():
            raise ConnectionLost("the engine died")
        return call.result()
