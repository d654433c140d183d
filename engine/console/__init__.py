"""The console API: the Vast routes for endpoints, workergroups, workers and logs, and stoker's own beside them."""

from aiohttp import web

from engine.console.endpoint_workflows import EndpointWorkflows
from engine.console.endpoints import EndpointsApi
from engine.console.logs import LogsApi
from engine.console.market import MarketApi
from engine.console.users import UsersApi
from engine.console.workergroups import WorkergroupsApi
from engine.console.workers import WorkersApi
from engine.engine import Engine


def add_console(app: web.Application, engine: Engine) -> None:
    """Add every console route to the application."""
    workflows = EndpointWorkflows(engine)
    app.add_routes(EndpointsApi(engine, workflows).routes())
    window = MarketApi(engine)
    app.add_routes(WorkergroupsApi(engine, workflows, window).routes())
    app.add_routes(WorkersApi(engine, workflows).routes())
    app.add_routes(LogsApi(engine, workflows).routes())
    app.add_routes(UsersApi(engine).routes())
    app.add_routes(window.routes())
    app.cleanup_ctx.append(window.living)
