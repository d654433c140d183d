"""An aiohttp server that answers every request with the same JSON: the floor of an HTTP call. Prints its port."""

import asyncio

import uvloop
from aiohttp import web

_ANSWER = b'{"request_idx": 1, "url": ""}'
"""As the load generator reads it."""


async def _hello(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=_ANSWER, content_type="application/json")


async def main() -> None:
    app = web.Application()
    app.router.add_post("/route/", _hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
