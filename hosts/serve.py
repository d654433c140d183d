"""Serves the marketplace over HTTP until it is stopped."""

import asyncio
import ipaddress
import signal
import socket
from collections.abc import Callable

import structlog
from aiohttp import web

from hosts.api.app import create_app
from hosts.settings import HostMarketSettings
from webserver.connections import ConnectionLimits, listen

log = structlog.get_logger(__name__)

CONNECTIONS = ConnectionLimits(connections_max=4096)


async def serve(
    settings: HostMarketSettings,
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    ready: Callable[[str], None] = lambda _: None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until `stop` is set (None: until SIGTERM or SIGINT); `ready` is called with the URL.

    Raises:
        StateInUse: another marketplace uses the state directory.
        OSError: the port is in use.
    """
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # Bind the port first: a marketplace that cannot serve must not touch instances.
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family) as listener:
        runner = web.AppRunner(create_app(settings), access_log=None, shutdown_timeout=2.0)
        try:
            await runner.setup()
            server, limiter = await listen(runner, sock=listener, limits=CONNECTIONS)
            host, bound = listener.getsockname()[:2]
            if not ipaddress.ip_address(host).is_loopback:
                log.warning(
                    "market_reachable_from_outside",
                    address=host,
                    advice="anyone with its key can run commands on this machine, and the key is sent unencrypted",
                )
            ready(f"http://[{host}]:{bound}" if ":" in host else f"http://{host}:{bound}")
            await stop.wait()
            server.close()
            limiter.close()
        finally:
            await runner.cleanup()
