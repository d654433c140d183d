"""aiohttp routes from the calls that handlers declare with `stoker_wire.http.openapi.handles`."""

import functools
from collections.abc import Callable
from typing import Any

from aiohttp import web

from stoker_wire.http.openapi import Table, declared_calls, operations_of


def routes_of(
    owner: object, instead: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None
) -> list[web.RouteDef]:
    """The routes of an object's methods, or of a module's functions, in the order of definition.

    `instead` makes the aiohttp handler of a declared call that another server answers.
    """
    return [
        web.route(method, path, handler if instead is None else instead(handler))
        for method, path, handler in declared_calls(owner)
    ]


def not_served_here(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A handler in place of one that another server calls: it has its declarations and answers 404.

    Only a path that differs from the declared one in its encoding gets here.
    """

    @functools.wraps(handler)
    async def refuse(_: web.Request) -> web.StreamResponse:
        raise web.HTTPNotFound

    return refuse


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
