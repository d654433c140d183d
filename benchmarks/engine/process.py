"""The engine under measurement, in a process of its own: `python -m benchmarks.engine.process <Temporal address>`.

The secret and the signing key come on stdin, the port goes to stdout.
"""

import asyncio
import sys

import structlog
import uvloop
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from engine.app import calm_garbage_collection, start_server
from engine.settings import EngineSettings


async def run(address: str) -> None:
    """Serve until stdin is closed."""
    secret, _, pem = sys.stdin.buffer.read().partition(b"\n")
    client = await Client.connect(address, data_converter=pydantic_data_converter)
    settings = EngineSettings(
        secret=bytes.fromhex(secret.decode()), rsa_private_key_pem=pem, port=0, metrics_public=True
    )
    server = await start_server(settings, client)
    calm_garbage_collection()
    print(server.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(
            30
        ),  # warnings: a line per worker drowns the figures
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    uvloop.run(run(sys.argv[1]))
