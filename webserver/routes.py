"""aiohttp routes from the calls that handlers declare with `stoker_wire.http.openapi.handles`."""

from aiohttp import web

from stoker_wire.http.openapi import Table, declared_calls, operations_of


def routes_of(owner: object) -> list[web.RouteDef]:
    """The routes of an object's methods, or of a module's functions, in the order of definition."""
    return [web.route(method, path, handler) for method, path, handler in declared_calls(owner)]


def operations_of_app(app: web.Application) -> Table:
    """The declared operations of every route of the application.

    Raises:
        LookupError: a route whose handler declares nothing.
    """
    return operations_of(
        (route.method, route.resource.canonical, route.handler)
        for route in app.router.routes()
        if route.method != "HEAD" and route.resource is not None
    )
