"""Several requests at a time: workers that follow published curves of real servers, with and without their concurrency.

A worker that batches runs many requests at once, so load that it holds is not load that waits. Its report says at what
concurrency its perf was measured; without that, everything behind the first request counts as waiting.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.scaling.generators import bursty, diurnal
from benchmarks.scaling.scalers import FIXED
from benchmarks.scaling.workloads import led_in
from simulation.controller_host import SimulatedController
from simulation.market import PERF_UNIT
from simulation.run import run
from simulation.scoring import RunScore
from simulation.settings import DEFAULT_WORLD, WorldSettings, calm
from simulation.trace import Trace

Curve = tuple[tuple[int, float], ...]
"""(requests at a time, output tokens/s)."""


@dataclass(frozen=True, slots=True)
class Server:
    """A published curve, and the concurrency of the benchmark: about where throughput stops growing with it."""

    name: str
    slots: int
    curve: Curve


SERVERS = (
    Server(
        "Llama 3.3 70B, 2 x H100",
        50,
        ((1, 51.67), (5, 218.48), (25, 623.4), (50, 814.37), (100, 917.26), (150, 920.9)),
    ),
    Server(
        "Nemotron Super 49B, B200",
        64,
        ((1, 73.0), (8, 570.0), (16, 1054.0), (32, 2120.0), (64, 3816.0)),
    ),
)
"""NVIDIA's NIM 1.8.0, fp8, 5,000 input and 500 output tokens
(https://docs.nvidia.com/nim/benchmarking/llm/1.0.0/performance), and vLLM, FP8, 2,048 input and 512 output tokens
(https://docs.vultr.com/inference-cookbook/cuda/optimization/concurrency-tuning), up to its saturation."""

HEADING = (
    f"{'server':<30}{'traffic':<10}{'s each':>7}{'':>4}{'concurrency':<14}{'≤ 10 s':>8}{'p99 wait':>10}{'p99 time':>10}"
    f"{'$':>9}{'idle':>7}"
)
_HOURS = 2.0
_WORKERS = 3
SERVICE_SECONDS = (20.0, 100.0)
"""How long a request runs beside as many others as in the benchmark: a short answer, and one with reasoning."""


@dataclass(frozen=True, slots=True)
class Line:
    """The results of one server under one traffic."""

    server: str
    traffic: str
    service_seconds: float
    reported: bool
    within_10: float
    wait_p99: float
    response_p99: float
    dollars: float
    idle: float
    """Share of the ready workers' time without any request."""

    def __str__(self) -> str:
        told = "reported" if self.reported else "unknown"
        return (
            f"{self.server:<30}{self.traffic:<10}{self.service_seconds:>7.0f}{'':>4}{told:<14}{self.within_10:>8.4f}"
            f"{self.wait_p99:>10.1f}{self.response_p99:>10.1f}{self.dollars:>9.2f}{self.idle:>7.0%}"
        )


def _traffic(requests: int, seed: int) -> dict[str, Callable[[], Trace]]:
    return {
        "diurnal": lambda: diurnal(requests=requests, days=_HOURS / 24.0, depth=0.6, seed=seed),
        "bursty": lambda: bursty(requests=requests, hours=_HOURS, seed=seed),
    }


def table(*, seed: int = 1, servers: tuple[Server, ...] = SERVERS) -> Iterator[Line]:
    """Each server, traffic and service time, with and without the concurrency in its reports."""
    for server in servers:
        for seconds in SERVICE_SECONDS:
            requests = int(_HOURS * 3600.0 * _WORKERS * server.slots / seconds)
            for name, make in _traffic(requests, seed).items():
                trace = led_in(make().scaled(mean_load=_WORKERS * PERF_UNIT))
                for reported in (False, True):
                    world = calm(DEFAULT_WORLD).but(
                        slots=server.slots, curve=server.curve, reports_concurrency=reported
                    )
                    yield _line(server, name, seconds, reported, _played(trace, world, seed))


def _played(trace: Trace, world: WorldSettings, seed: int) -> RunScore:
    return run(trace, SimulatedController(FIXED), world, seed=seed, config=FIXED, score_from=1800.0)


def _line(server: Server, traffic: str, seconds: float, reported: bool, made: RunScore) -> Line:
    return Line(
        server.name, traffic, seconds, reported, made.within_10, made.wait_p99, made.response_p99, made.dollars,
        1.0 - made.utilisation,
    )  # fmt: skip
