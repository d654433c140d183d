"""The scalers: the policy with one fixed configuration, and the peers at defaults and with settings for hindsight."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.scaling.peers.foresight import RateOracle
from benchmarks.scaling.peers.replicas import Peer
from benchmarks.scaling.peers.rules import (
    HPA,
    Dstack,
    KnativeKPA,
    RayServe,
    RunPodQueueDelay,
    SkyServe,
    Static,
    VastRule,
)
from benchmarks.scaling.workloads import Workload
from simulation.controller_host import SimulatedController
from simulation.market import PERF_UNIT
from simulation.world import FleetController
from stoker_wire.endpoint import EndpointConfig

FIXED = EndpointConfig(
    max_workers=512,
    min_workers=2,
    min_load=0.0,
    target_util=1.0,
    cold_mult=2.0,
    target_queue_time=8.0,
    max_queue_time=30.0,
)
"""One configuration for every workload and load. It differs from the public defaults in what they cost without load:
no worker stays hot at zero, the only spare is the policy's own, and the cold pool is twice the recent hot capacity.
The cap is never reached, and the target is somewhat below the 10 s that are scored."""

LINE_SECONDS = 10.0
"""The peers have no target_queue_time; their deadline-aware queue uses the scored 10 s."""

NO_POOL = FIXED.model_copy(update={"min_workers": 0, "cold_mult": 1.0})
"""The same where the market keeps no stopped machines."""

Make = Callable[[Workload], FleetController]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a scaler."""

    scaler: str
    label: str
    make: Make
    line_seconds: float = LINE_SECONDS
    """The request queue's target_queue_time, seconds."""


def stoker(config: EndpointConfig = FIXED) -> Make:
    """The production policy."""
    return lambda _: SimulatedController(config)


def fixed(config: EndpointConfig = FIXED) -> Setting:
    """The policy in its one configuration."""
    return Setting("stoker", "fixed", stoker(config), config.target_queue_time)


def defaults(config: EndpointConfig = FIXED) -> list[Setting]:
    """The policy, and every peer with its default constants."""
    return [fixed(config), *(settings(name)[0] for name in PEERS)]


def settings(name: str) -> list[Setting]:
    """The peer's defaults first, then its other settings for hindsight."""
    return [Setting(name, label, make) for label, make in PEERS[name]()]


Ways = Iterator[tuple[str, Make]]


def _skyserve() -> Ways:
    def way(share: float, up: float, down: float) -> Make:
        return lambda w: Peer(
            SkyServe(w.service_seconds, utilisation=share, up_seconds=up, down_seconds=down), minimum=1
        )

    yield "defaults", way(0.8, 300.0, 1200.0)
    for share in (0.3, 0.5):
        for up, down in ((300.0, 1200.0), (20.0, 300.0), (20.0, 1200.0)):
            yield f"{share:g} per replica, up {up:g} s, down {down:g} s", way(share, up, down)


def _kpa() -> Ways:
    def way(share: float, stable: float) -> Make:
        return lambda _: Peer(
            KnativeKPA(target_share=share, stable_seconds=stable, panic_seconds=stable / 10)
        )

    yield "defaults", way(0.7, 60.0)
    for share, stable in ((0.3, 60.0), (0.5, 60.0), (0.9, 60.0), (0.3, 300.0), (0.5, 300.0), (0.7, 300.0)):
        yield f"target {share:g}, stable window {stable:g} s", way(share, stable)


def _ray() -> Ways:
    def way(target: float, up: float, down: float, minimum: int) -> Make:
        return lambda _: Peer(
            RayServe(target_ongoing=target, up_seconds=up, down_seconds=down), minimum=minimum
        )

    yield "defaults", way(2.0, 30.0, 600.0, 1)
    for target in (0.4, 0.7, 1.0):
        for up, down, minimum in ((0.0, 60.0, 0), (0.0, 600.0, 0), (0.0, 600.0, 1)):
            yield (
                f"target {target:g}, up {up:g} s, down {down:g} s, at least {minimum}",
                way(target, up, down, minimum),
            )


def _hpa() -> Ways:
    def way(target: float, down: float) -> Make:
        return lambda _: Peer(HPA(target=target, down_seconds=down), minimum=1)

    yield "defaults", way(0.7, 300.0)
    for target, down in ((0.2, 300.0), (0.35, 300.0), (0.5, 300.0), (0.35, 1800.0)):
        yield f"target {target:g}, down {down:g} s", way(target, down)


def _dstack() -> Ways:
    def way(share: float, up: float, down: float) -> Make:
        return lambda w: Peer(Dstack(w.service_seconds, utilisation=share, up_seconds=up, down_seconds=down))

    yield "defaults", way(0.8, 300.0, 600.0)
    for share in (0.3, 0.5):
        for up, down in ((0.0, 60.0), (0.0, 600.0)):
            yield f"{share:g} per replica, up {up:g} s, down {down:g} s", way(share, up, down)


def _runpod() -> Ways:
    def way(delay: float, idle: float) -> Make:
        return lambda _: Peer(RunPodQueueDelay(delay_seconds=delay, idle_seconds=idle))

    yield "defaults", way(4.0, 5.0)
    for delay, idle in ((1.0, 60.0), (1.0, 300.0), (1.0, 1800.0), (1.0, 3600.0)):
        yield f"delay {delay:g} s, idle {idle:g} s", way(delay, idle)


def _static() -> Ways:
    def way(share: float) -> Make:
        return lambda w: Peer(Static(max(1, math.ceil(share * w.peak_workers))))

    yield "the busiest minute", way(1.0)
    for share in (0.3, 0.5, 0.7, 1.4):
        yield f"{share:g} x the busiest minute", way(share)


def _vast() -> Ways:
    def way(util: float, minimum: float) -> Make:
        return lambda _: Peer(VastRule(PERF_UNIT, target_util=util, min_load=minimum))

    yield "defaults", way(0.9, 1.0)
    for util in (0.3, 0.5, 0.7):
        for minimum in (1.0, PERF_UNIT * 2):
            yield f"target_util {util:g}, min_load {minimum:g}", way(util, minimum)


PEERS: dict[str, Callable[[], Ways]] = {
    "SkyServe": _skyserve,
    "Knative KPA": _kpa,
    "Ray Serve": _ray,
    "HPA 70 %": _hpa,
    "dstack": _dstack,
    "RunPod queue delay": _runpod,
    "Vast's documented rule": _vast,
    "static peak": _static,
}


def foresighted(spare: float, *, lead_seconds: float) -> Setting:
    """The comparator that knows the true load of every minute."""
    return Setting(
        "rate oracle",
        f"spare {spare:g} deviations",
        lambda w: Peer(
            RateOracle(
                w.trace.times,
                [work / PERF_UNIT for work in w.trace.works],
                spare_deviations=spare,
                lead_seconds=lead_seconds,
            )
        ),
    )
