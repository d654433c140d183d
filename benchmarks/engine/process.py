"""The measured engine in its own process: `python -m benchmarks.engine.process <Temporal address> [<request log>]`.

Reads the secret and the signing key from stdin, writes the port to stdout.
"""

import asyncio
import sys
from pathlib import Path

import structlog
import uvloop
from temporalio.client import Client

from engine.app import start_server
from engine.settings import EngineSettings, RequestLogSettings
from run.gc_tuning import tune_garbage_collector
from workflows.temporal_worker.converter import data_converter


async def run(address: str, request_log: Path | None) -> None:
    """Serve until stdin is closed."""
    secret, _, pem = sys.stdin.buffer.read().partition(b"\n")
    client = await Client.connect(address, data_converter=data_converter)
    settings = EngineSettings(
        secret=bytes.fromhex(secret.decode()),
        rsa_private_key_pem=pem,
        port=0,
        request_log=RequestLogSettings(path=request_log) if request_log else None,
    )
    server = await start_server(settings, client)
    tune_garbage_collector()
    print(server.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(
            30
        ),  # warnings only: a line per worker would hide the results
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    uvloop.run(run(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None))
