"""The dashboard as an aiohttp application, and as a server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from dashboard.history import History
from dashboard.pages.endpoint_pages import EndpointPages
from dashboard.pages.sessions import Sessions
from dashboard.pages.shell import Shell
from dashboard.pages.worker_pages import WorkerPages
from dashboard.prometheus import Prometheus
from dashboard.sampler import Sampler
from dashboard.settings import DashboardSettings
from stoker_wire.errors.problem import Problem
from stoker_wire.security.cross_origin import host_names
from webserver.connections import ConnectionLimits, listen
from webserver.request_checks import Handler, reject_ambiguous_requests, reject_cross_origin

_STATIC = Path(__file__).parent / "static"
_BODY_BYTES_MAX = 64 * 1024
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
"""No page may load, frame or run anything from elsewhere, and no inline script or style runs."""


def create_app(settings: DashboardSettings) -> web.Application:
    """The dashboard; it starts to sample when the application starts."""
    history = History(settings.history_file)
    sampler = Sampler(settings, history)
    shell = Shell(sampler, Sessions(settings.accounts))
    prometheus = (
        Prometheus(settings.prometheus_url, settings.prometheus_labels, settings.prometheus_authorization)
        if settings.prometheus_url
        else None
    )
    pages = EndpointPages(settings, shell, history, prometheus)
    names = host_names(settings.public_url, settings.host, *settings.allowed_hosts)
    app = web.Application(
        middlewares=[_as_page(shell), reject_ambiguous_requests, reject_cross_origin(names)],
        client_max_size=_BODY_BYTES_MAX,
    )
    app.add_routes([*pages.routes(), *WorkerPages(shell).routes()])
    app.router.add_static("/static/", _STATIC)
    app.on_response_prepare.append(_add_headers)

    async def run(_: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(sampler.run(), name="dashboard sampler")
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await sampler.close()
        if prometheus is not None:
            await prometheus.close()
        history.close()

    async def end_streams(_: web.Application) -> None:
        shell.end_streams()

    app.cleanup_ctx.append(run)
    app.on_shutdown.append(end_streams)
    return app


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    cache = "public, max-age=300" if request.path.startswith("/static/") else "no-store"
    response.headers.setdefault("Cache-Control", cache)


def _as_page(shell: Shell) -> Middleware:
    @web.middleware
    async def handle(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Problem as problem:
            return shell.fault(request, problem.status, problem.message, problem.headers)
        except web.HTTPException as fault:
            if fault.status < 400:
                raise
            return shell.fault(request, fault.status, fault.reason or "", fault.headers)

    return handle


async def serve(settings: DashboardSettings, *, stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises:
        OSError: the address is in use or does not belong to this machine.
    """
    runner = web.AppRunner(
        create_app(settings), access_log=None, handler_cancellation=True, shutdown_timeout=2.0
    )
    await runner.setup()
    limits = ConnectionLimits(connections_max=1_000, idle_seconds_max=75.0)
    try:
        server, limiter = await listen(runner, settings.host, settings.port, limits=limits)
    except BaseException:
        await runner.cleanup()
        raise
    try:
        await stop.wait()
    finally:
        server.close()
        with contextlib.suppress(asyncio.CancelledError):
            await runner.cleanup()
        limiter.close()
