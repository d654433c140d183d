"""Who runs: the policy with one fixed configuration for everything, and the peers, at defaults and tuned in hindsight."""

from collections.abc import Callable, Iterator

from benchmarks.scaling.workloads import Workload
from simulation.baselines.replicas import Peer
from simulation.baselines.rules import (
    HPA,
    Dstack,
    KnativeKPA,
    RayServe,
    RunPodQueueDelay,
    SkyServe,
    Static,
    VastRule,
)
from simulation.market import PERF_UNIT
from simulation.pilot import PolicyPilot
from simulation.world import Pilot
from stoker_wire.endpoint import EndpointConfig

FIXED = EndpointConfig(
    max_workers=512,
    min_workers=5,
    min_load=0.0,
    target_util=1.0,
    cold_mult=1.3,
    target_queue_time=10.0,
    max_queue_time=30.0,
)
"""One configuration for every workload and load: the public defaults but for what they cost without being asked for
(no worker is kept hot without load, the policy's own spare is the only one, the cold pool is what was hot lately) and a
cap that is never reached."""

NO_POOL = FIXED.model_copy(update={"min_workers": 0, "cold_mult": 1.0})
"""The same where the market keeps no stopped machines."""

Make = Callable[[Workload], Pilot]


def stoker(config: EndpointConfig = FIXED) -> Make:
    """The production policy."""
    return lambda _: PolicyPilot(config)


DEFAULTS: dict[str, Make] = {
    "SkyServe": lambda w: Peer(SkyServe(w.service_seconds), minimum=1),
    "Knative KPA": lambda _: Peer(KnativeKPA()),
    "Ray Serve": lambda _: Peer(RayServe()),
    "HPA 70 %": lambda _: Peer(HPA(), minimum=1),
    "dstack": lambda w: Peer(Dstack(w.service_seconds)),
    "RunPod queue delay": lambda _: Peer(RunPodQueueDelay()),
    "Vast's documented rule": lambda _: Peer(VastRule(PERF_UNIT)),
}


def tuned(name: str) -> Iterator[tuple[str, Make]]:
    """The settings that hindsight may choose from, per workload."""
    match name:
        case "Knative KPA":
            for share in (0.3, 0.5, 0.9):
                for stable in (60.0, 300.0):
                    yield f"target {share}, stable {stable:g} s", _kpa(share, stable)
        case "Ray Serve":
            for target in (0.5, 0.8, 1.2):
                for up, down in ((0.0, 60.0), (5.0, 300.0)):
                    yield f"target {target}, up {up:g} s, down {down:g} s", _ray(target, up, down)
        case "Vast's documented rule":
            for util in (0.3, 0.5, 0.7):
                yield f"target_util {util}", _vast(util)
        case "static peak":
            for factor in (1.5, 2.0, 3.0, 5.0, 8.0, 12.0):
                yield f"{factor:g} x mean", _static(factor)


def _kpa(share: float, stable: float) -> Make:
    return lambda _: Peer(KnativeKPA(target_share=share, stable_seconds=stable))


def _ray(target: float, up: float, down: float) -> Make:
    return lambda _: Peer(RayServe(target_ongoing=target, up_seconds=up, down_seconds=down))


def _vast(util: float) -> Make:
    return lambda _: Peer(VastRule(PERF_UNIT, target_util=util))


def _static(factor: float) -> Make:
    return lambda w: Peer(Static(max(1, round(w.workers * factor))))
