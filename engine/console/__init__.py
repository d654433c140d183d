"""The console API: the Vast routes for endpoints, workergroups, workers and logs, and stoker's own beside them."""

from aiohttp import web

from engine.console.endpoints import EndpointDesk
from engine.console.logs import LogDesk
from engine.console.market import MarketWindow
from engine.console.temporal import EndpointWorkflows
from engine.console.users import UserDesk
from engine.console.workergroups import WorkergroupDesk
from engine.console.workers import WorkerDesk
from engine.engine import Engine


def add_console(app: web.Application, engine: Engine) -> None:
    """Add every console route to the application."""
    workflows = EndpointWorkflows(engine)
    app.add_routes(EndpointDesk(engine, workflows).routes())
    window = MarketWindow(engine)
    app.add_routes(WorkergroupDesk(engine, workflows, window).routes())
    app.add_routes(WorkerDesk(engine, workflows).routes())
    app.add_routes(LogDesk(engine, workflows).routes())
    app.add_routes(UserDesk(engine).routes())
    app.add_routes(window.routes())
    app.cleanup_ctx.append(window.living)
