"""The console API: Vast's calls for endpoints, workergroups, workers and logs, and stoker's own calls."""

from aiohttp import web

from engine.console.endpoint_workflows import EndpointWorkflows
from engine.console.endpoints import EndpointsApi
from engine.console.keys import KeysApi
from engine.console.logs import LogsApi
from engine.console.market import MarketApi
from engine.console.market_events import MarketEventsApi
from engine.console.offers import OffersApi
from engine.console.overview import OverviewApi
from engine.console.templates import TemplatesApi
from engine.console.users import UsersApi
from engine.console.workergroups import WorkergroupsApi
from engine.console.workers import WorkersApi
from engine.engine import Engine
from webserver.routes import routes_of


def add_console(app: web.Application, engine: Engine) -> None:
    """Add the console's routes to the application."""
    workflows = EndpointWorkflows(engine)
    market = MarketApi(engine)
    logs = LogsApi(engine, workflows)
    offers = OffersApi(engine, market)
    for api in (
        EndpointsApi(engine, workflows),
        KeysApi(engine, workflows),
        WorkergroupsApi(engine, workflows, market, offers),
        WorkersApi(engine, workflows),
        logs,
        UsersApi(engine),
        OverviewApi(engine),
        market,
        MarketEventsApi(engine),
        offers,
        TemplatesApi(engine, workflows, market),
    ):
        app.add_routes(routes_of(api))
    app.cleanup_ctx.append(market.open_session)
    app.cleanup_ctx.append(logs.open_market)
