"""The engine as an aiohttp application, and as a server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web
from temporalio.client import Client

from engine.api.bootstrap_api import BootstrapApi
from engine.api.cors import CorsPolicy
from engine.api.job_api import JobApi
from engine.api.models_api import ModelsApi
from engine.api.monitoring.health_api import HealthApi
from engine.api.monitoring.metrics_api import MetricsApi
from engine.api.openai_api import OpenAIApi
from engine.api.parsing import BODY_SECONDS
from engine.api.problems import problems
from engine.api.route_api import RouteApi
from engine.api.worker_api import WorkerApi
from engine.console import add_console
from engine.engine import Engine
from engine.http.root_handler import RootHandler, http_limits
from engine.openapi.document import OpenApiApi
from engine.settings import EngineSettings
from engine.tls.certificate_authority import CertificateApi, worker_trust
from stoker_wire.http1.server import HttpServer
from stoker_wire.security.cross_origin import host_names
from webserver.aiohttp_bridge import AiohttpBridge
from webserver.connections import connections_possible
from webserver.routes import not_served_here, routes_of

if TYPE_CHECKING:  # loads OpenTelemetry
    from stoker_wire.tracing.tracer import Tracing

_SHUTDOWN_SECONDS = 5.0


@dataclass(frozen=True)
class Parts:
    """The engine, and what its server needs of it."""

    engine: Engine
    app: web.Application
    """Starts and stops the engine, and holds the calls that are not on the hot path."""
    route_api: RouteApi
    worker_api: WorkerApi
    models_api: ModelsApi
    openai_api: OpenAIApi
    job_api: JobApi
    cors: CorsPolicy
    names: frozenset[str]


def create_parts(
    settings: EngineSettings, temporal_client: Client, *, tracing: "Tracing | None" = None
) -> Parts:
    """The engine, not started.

    The client must use `workflows.temporal_worker.converter.data_converter`.
    """
    engine = Engine(settings, temporal_client, tracing=tracing)
    route_api = RouteApi(engine)
    trusted = worker_trust(settings.ca_key_pem)
    cors = CorsPolicy(engine)
    openai_api = OpenAIApi(engine, route_api, cors, trusted)
    job_api = JobApi(engine, route_api, openai_api, cors)
    names = host_names(settings.public_url, settings.host, *settings.allowed_hosts)
    # `engine.http.root_handler` checks the heads of requests.
    app = web.Application(middlewares=[problems], client_max_size=settings.limits.body_bytes_max)
    app[BODY_SECONDS] = settings.limits.body_seconds_max
    for api in (
        BootstrapApi(engine),
        HealthApi(engine),
        MetricsApi(engine),
        OpenApiApi(),
        CertificateApi(engine),
    ):
        app.add_routes(routes_of(api))
    models_api = ModelsApi(engine, route_api, openai_api, cors)
    worker_api = WorkerApi(engine)
    for native in (route_api, worker_api, models_api, openai_api, job_api):
        app.add_routes(routes_of(native, not_served_here))
    add_console(app, engine)

    async def run_engine(_: web.Application) -> AsyncIterator[None]:
        await engine.start()
        async with openai_api:
            yield
        await engine.close()

    app.cleanup_ctx.append(run_engine)
    return Parts(engine, app, route_api, worker_api, models_api, openai_api, job_api, cors, names)


class Server:
    """A running engine with its listening socket."""

    def __init__(self, runner: web.AppRunner, http: HttpServer, parts: Parts, url: str, port: int) -> None:
        self._runner = runner
        self._parts = parts
        self.http = http
        self.engine = parts.engine
        self.url = url
        self.port = port

    def __repr__(self) -> str:
        return f"<Server {self.url} {self.engine!r}>"

    async def close(self) -> None:
        """End held calls, finish running requests, stop."""
        self.http.stop_listening()
        self.engine.stop_holding()
        for tunnel in list(self._parts.openai_api.tunnels):
            tunnel.close()
        await self.http.drain(_SHUTDOWN_SECONDS)
        await self.http.close(0)
        await self._runner.cleanup()


async def start_server(
    settings: EngineSettings, temporal_client: Client, *, tracing: "Tracing | None" = None
) -> Server:
    """Listen on the address of the settings.

    Raises:
        OSError: the address is in use or does not belong to this machine.
    """
    parts = create_parts(settings, temporal_client, tracing=tracing)
    runner = web.AppRunner(parts.app, access_log=None)
    await runner.setup()
    assert runner.server is not None, "set by setup()"
    root = RootHandler(
        parts.engine,
        route_api=parts.route_api,
        worker_api=parts.worker_api,
        models_api=parts.models_api,
        openai_api=parts.openai_api,
        job_api=parts.job_api,
        cors=parts.cors,
        names=parts.names,
        others=AiohttpBridge(runner.server),
    )
    http = HttpServer(
        root,
        http_limits(settings.limits),
        budget_of=root.budget_of,
        describe=root.describe,
        connections_max=connections_possible(settings.limits.connections),
    )
    try:
        port = await http.listen(settings.host, settings.port)
    except BaseException:
        await runner.cleanup()
        raise
    return Server(runner, http, parts, f"http://{_reachable(settings.host)}:{port}", port)


def _reachable(host: str) -> str:
    if host in {"0.0.0.0", "::", ""}:
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


async def serve(
    settings: EngineSettings,
    temporal_client: Client,
    *,
    stop: asyncio.Event | None = None,
    tracing: "Tracing | None" = None,
) -> None:
    """Serve until `stop` is set or the task is cancelled."""
    server = await start_server(settings, temporal_client, tracing=tracing)
    try:
        await (stop or asyncio.Event()).wait()
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(server.close())
