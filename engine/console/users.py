"""`/api/v0/users/current`: the account of the key."""

from aiohttp import web

from engine.api.keys import user_id
from engine.api.parsing import answer
from engine.engine import Engine
from engine.openapi import market_shapes
from engine.openapi.declarations import ACCOUNT, ok
from stoker_wire.http.openapi import handles


class UsersApi:
    """The calling account."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @handles(
        "GET /api/v0/users/current",
        "GET /api/v0/users/current/",
        tag="account",
        security=ACCOUNT,
        replies=ok(market_shapes.User),
        refuses=(401,),
    )
    async def current(self, request: web.Request) -> web.Response:
        """The account in the official format."""
        owner = self._engine.accounts.authenticate(request)
        return answer(
            {
                "id": user_id(owner),
                "username": owner,
                "email": "",
                "host_agreement_accepted": False,
                "balance": 0.0,
                "credit": 0.0,
            }
        )
