"""One page of the engine's metrics: `python -m benchmarks.metrics_page [endpoints]`.

The CPU time to make it, and the wall time until curl has received it from the engine's server over loopback. Every endpoint has two ready workers on two kinds of GPU, and requests in most buckets of all its histograms. `active` is
the share of the endpoints that had a request since the page before; the others are written from their last text.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Iterable
from statistics import median

import structlog
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from temporalio.client import Client

from benchmarks.engine.machine import facts
from engine.app import Server, start_server
from engine.metrics import exposition, protobuf
from engine.request_stats import EndedRequest
from engine.routing.endpoint import Endpoint
from engine.settings import EngineSettings
from stoker_wire.messages import EndpointMemo, Member
from stoker_wire.states import WorkerState
from webserver.metrics_page import OPEN_METRICS, PROTOBUF, TEXT

KINDS = ("1x RTX 4090", "1x H100")
PAGES = 5
KEY = "k" * 40


def request(number: int) -> EndedRequest:
    """A request whose times depend on its number."""
    model, queued = 0.2 * 1.15 ** (number % 30), 0.01 * 1.2 ** (number % 20)
    return EndedRequest(
        request_idx=number + 1,
        arrived_at=0.0,
        cost=1.0,
        waited_s=0.003 * 1.3 ** (number % 20),
        took_s=model + queued,
        busy_s=model,
        queued_s=queued,
        launch_id="a",
        gpu=KINDS[number % 2],
        outcome="done",
    )


def observe(endpoint: Endpoint, number: int) -> None:
    """Count one request in every histogram."""
    ended = request(number)
    endpoint.stats.waited.observe(ended.waited_s, ended.request_idx)
    endpoint.stats.end(ended)


async def started(count: int) -> tuple[Server, list[Endpoint]]:
    """An engine without Temporal that knows this many endpoints."""
    nowhere = await Client.connect("127.0.0.1:9", lazy=True)
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    settings = EngineSettings(
        accounts={"a": KEY}, secret=b"s" * 32, rsa_private_key_pem=pem, host="127.0.0.1", port=0
    )
    server = await start_server(settings, nowhere)
    engine = server.engine
    for n in range(count):
        members = tuple(
            Member(l=f"{n:08x}{k:04x}", i=n * 10 + k + 1, g=1, s=WorkerState.READY, p=100.0, c=0.3, k=kind)
            for k, kind in enumerate(KINDS)
        )
        memo = EndpointMemo(id=n + 1, name=f"endpoint-{n}", owner="a", groups=(1,), members=members)
        endpoint = engine.directory.apply(memo, 0.0)
        for number in range(40):
            observe(endpoint, number)
    return server, list(engine.directory)


async def seconds_of_scrape(server: Server, accept: str) -> float:
    """Wall time of one scrape, by a client of its own process."""
    curl = await asyncio.create_subprocess_exec(
        "curl",
        "--silent",
        "--fail",
        "--output",
        "/dev/null",
        "--write-out",
        "%{time_total}",
        "--header",
        f"Authorization: Bearer {KEY}",
        "--header",
        f"Accept: {accept}",
        f"{server.url}/metrics",
        stdout=asyncio.subprocess.PIPE,
    )
    written, _ = await curl.communicate()
    if curl.returncode:
        raise SystemExit(f"curl ended with {curl.returncode}")
    return float(written)


async def main(count: int) -> None:
    """Print the table."""
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr)
    )  # Temporal is missing on purpose
    server, endpoints = await started(count)
    engine = server.engine
    formats: dict[str, tuple[str, Callable[[], Iterable[str | bytes]]]] = {
        "text": (TEXT, lambda: exposition.parts(engine, endpoints, open_metrics=False)),
        "OpenMetrics": (OPEN_METRICS, lambda: exposition.parts(engine, endpoints, open_metrics=True)),
        "protobuf": (PROTOBUF, lambda: protobuf.parts(engine, endpoints)),
    }
    print(facts())
    print(f"| {count:,} endpoints | active | CPU, median | wall time, median | size |\n|---|---|---|---|---|")
    for name, (accept, parts) in formats.items():
        list(parts())
        for share in (0.1, 1.0):
            active, cpu, wall, size = endpoints[: int(count * share)], [], [], 0
            for page in range(PAGES):
                for endpoint in active:
                    observe(endpoint, page)
                began = time.process_time()
                size = sum(map(len, parts()))
                cpu.append(time.process_time() - began)
                for endpoint in active:
                    observe(endpoint, page)
                wall.append(await seconds_of_scrape(server, accept))
            print(
                f"| {name} | {share:.0%} | {median(cpu):.2f} s | {median(wall):.2f} s | {size / 1e6:.1f} MB |"
            )
    await server.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
