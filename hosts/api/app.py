"""The host marketplace as an aiohttp application."""

from collections.abc import AsyncIterator, Callable

from aiohttp import web

from hosts.api import account_routes, metrics, openapi, routes
from hosts.api.http import BODY_BYTES_MAX, HOST, authenticate, inject_faults, problem_responses
from hosts.api.log_view import LogView
from hosts.api.routes import LOGS
from hosts.catalog.gpus import Gpu, find_gpus
from hosts.host import Host
from hosts.settings import HostMarketSettings
from stoker_wire.security.cross_origin import host_names
from webserver.request_checks import reject_ambiguous_requests, reject_cross_origin
from webserver.routes import routes_of


def create_app(settings: HostMarketSettings, *, gpus: Callable[[], list[Gpu]] = find_gpus) -> web.Application:
    """The application. Its startup opens the state (raises StateInUse); its cleanup closes the host."""
    guard = reject_cross_origin(host_names(settings.public_ip))
    app = web.Application(
        middlewares=[
            metrics.measured,
            problem_responses,
            reject_ambiguous_requests,
            guard,
            authenticate,
            inject_faults,
        ],
        client_max_size=BODY_BYTES_MAX,
    )

    async def lifespan(running: web.Application) -> AsyncIterator[None]:
        host = Host(settings, gpus=gpus)
        running[HOST] = host
        try:
            await host.open()
            yield
        finally:
            await host.close()

    app[LOGS] = LogView()
    metrics.add_metrics(app)
    app.cleanup_ctx.append(lifespan)
    for module in (routes, account_routes, openapi, metrics):
        app.add_routes(routes_of(module))
    return app
