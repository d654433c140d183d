from collections.abc import Callable

import pytest

from benchmarks.scaling.peers.replicas import Peer
from benchmarks.scaling.peers.rules import Static
from simulation.controller_host import SimulatedController
from simulation.settings import Spread, WorldSettings
from simulation.trace import Trace
from stoker_wire.endpoint import EndpointConfig

STEADY = WorldSettings(
    perf_spread=0.0,
    price_cv=0.0,
    never_loads=0.0,
    never_restarts=0.0,
    outbid_per_hour=0.0,
    late_share=0.0,
    lost_share=0.0,
    start=Spread(20.0, 20.0),
    loading=Spread(180.0, 180.0),
    create_seconds=(20.0, 20.0),
)
"""A world without randomness: creates take 200 s (180 s billed), starts 20 s, a worker serves 100 load/s at $0.42/h."""


@pytest.fixture
def steady() -> WorldSettings:
    return STEADY


@pytest.fixture
def even() -> Callable[..., Trace]:
    def make(*, every: float, work: float, seconds: float, start: float = 0.0) -> Trace:
        count = int((seconds - start) / every)
        return Trace.of("even", ((start + n * every, work) for n in range(count)), seconds=seconds)

    return make


@pytest.fixture
def controller() -> Callable[..., SimulatedController]:
    def make(**config: object) -> SimulatedController:
        given = {"max_workers": 64, "min_workers": 0, "min_load": 0.0} | config
        return SimulatedController(EndpointConfig.model_validate(given))

    return make


@pytest.fixture
def static() -> Callable[[int], Peer]:
    return lambda workers: Peer(Static(workers))
