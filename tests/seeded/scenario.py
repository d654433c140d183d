"""The events of one run, drawn from a seed before it begins."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from stoker_wire.endpoint import EndpointConfig
from stoker_wire.market import Offer, Template
from stoker_wire.workergroup import Workergroup
from tests.seeded.market_faults import CALM, MarketFaults, Pace
from tests.seeded.temporal.executions import Weather

TEMPLATES = [
    Template(
        id=7 + number,
        hash_id=name,
        name=name,
        image="img",
        env="-e MODEL=small -e HF_TOKEN=secret:HF_TOKEN",
        recommended_disk_space=40.0,
    )
    for number, name in enumerate(["first", "second"])
]
_KINDS = [("RTX 3090", 0.20, 30.0), ("RTX 4090", 0.35, 60.0), ("H100", 1.80, 200.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Requests at a constant rate."""

    seconds: float
    requests_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One action of an operator, or one event."""

    at: float
    what: str
    how: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Connections of workers and clients."""

    report_lost: float = 0.0
    report_late: float = 0.0
    client_late: float = 0.0
    """Share of clients that are slow to use their ticket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One run: a storm, a calm in which everything must recover, and the deletion."""

    seed: int
    config: EndpointConfig
    groups: tuple[Workergroup, ...]
    offers: tuple[Offer, ...]
    pace: Pace
    troubles: MarketFaults
    weather: Weather
    lines: Lines
    phases: tuple[Phase, ...]
    events: tuple[Event, ...]
    cost: float
    model_seconds: float
    history_events_max: int
    engines: int
    calm_seconds: float = 700.0

    @property
    def storm_seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases)


def scenario(seed: int) -> Scenario:
    """The run of this seed."""
    chance = random.Random(seed)
    phases = _phases(chance)
    storm = sum(phase.seconds for phase in phases)
    return Scenario(
        seed=seed,
        config=_config(chance),
        groups=_groups(chance),
        offers=_offers(chance),
        pace=Pace(
            call_seconds=chance.choice([0.05, 0.3, 1.0]),
            pull_seconds=chance.choice([20.0, 60.0, 180.0]),
            start_seconds=chance.choice([4.0, 15.0]),
            stop_seconds=chance.choice([1.0, 5.0]),
            destroy_seconds=chance.choice([0.1, 2.0, 10.0]),
            list_lag_seconds=chance.choice([0.0, 1.0, 4.0]),
        ),
        troubles=_troubles(chance),
        weather=Weather(
            rpc_seconds=chance.choice([0.005, 0.05, 0.4]),
            task_seconds=chance.choice([0.005, 0.05, 0.3]),
            local_seconds=chance.choice([0.01, 0.2]),
            visibility_seconds=chance.choice([0.05, 1.0]),
            rpc_lost=chance.choice([0.0, 0.0, 0.03]),
            evicted=chance.choice([0.0, 0.01]),
            calls_per_second=chance.choice([2.0, 2.0, 10.0]),
        ),
        lines=Lines(
            report_lost=chance.choice([0.0, 0.05, 0.3]),
            report_late=chance.choice([0.0, 0.05]),
            client_late=chance.choice([0.0, 0.02, 0.1]),
        ),
        phases=phases,
        events=_events(chance, storm),
        cost=chance.choice([20.0, 100.0, 600.0]),
        model_seconds=chance.choice([5.0, 30.0]),
        history_events_max=chance.choice([120, 300, 900]),
        engines=chance.choice([1, 1, 2]),
    )


def calmed(weather: Weather) -> Weather:
    """Temporal without faults."""
    return replace(weather, rpc_lost=0.0)


CALM_LINES = Lines()
CALM_MARKET = CALM


def _config(chance: random.Random) -> EndpointConfig:
    return EndpointConfig(
        min_load=chance.choice([0.0, 0.0, 1.0, 150.0]),
        min_workers=chance.choice([0, 1, 2, 4]),
        max_workers=chance.choice([1, 3, 6, 10]),
        target_util=chance.choice([0.7, 0.9, 1.0]),
        cold_mult=chance.choice([1.0, 2.0, 3.0]),
        inactivity_timeout=chance.choice([None, 60.0, 300.0]),
        max_queue_time=chance.choice([5.0, 30.0]),
        target_queue_time=chance.choice([2.0, 10.0]),
        dollars_per_hour_max=chance.choice([None, None, 0.8, 2.5]),
        drain_seconds_max=chance.choice([30.0, 120.0, 600.0]),
    )


def _groups(chance: random.Random) -> tuple[Workergroup, ...]:
    groups = [Workergroup(id=1, template_hash="first", test_workers=chance.choice([0, 2]))]
    if chance.random() < 0.3:
        groups.append(
            Workergroup(id=2, template_hash="second", test_workers=0, max_workers=chance.choice([None, 2]))
        )
    return tuple(groups)


def _offers(chance: random.Random) -> tuple[Offer, ...]:
    made = []
    for number in range(chance.choice([6, 15, 30])):
        name, price, dlperf = chance.choice(_KINDS[: chance.choice([2, 3])])
        made.append(
            Offer(
                id=100 + number,
                machine_id=500 + number,
                gpu_name=name,
                num_gpus=1,
                gpu_ram=24_000,
                dph_total=round(price * chance.uniform(0.8, 1.4), 4),
                storage_cost=chance.choice([0.1, 0.3]),
                dlperf=dlperf,
                reliability=0.99,
            )
        )
    return tuple(made)


def _troubles(chance: random.Random) -> MarketFaults:
    """Each kind of fault is off, rare or frequent; with all of them frequent at once, no run would get far."""

    def some(rare: float, frequent: float) -> float:
        return chance.choice([0.0, 0.0, 0.0, rare, rare, frequent])

    return MarketFaults(
        limited=some(0.03, 0.15),
        unavailable=some(0.03, 0.15),
        timeout=some(0.02, 0.08),
        lost=some(0.05, 0.25),
        slow=some(0.05, 0.2),
        late=some(0.0, 0.1),
        refused=some(0.05, 0.2),
        taken=some(0.05, 0.3),
        never_loads=some(0.05, 0.25),
        crash_loops=some(0.05, 0.2),
        errors=some(0.05, 0.2),
        mute=some(0.05, 0.2),
        outbid=some(0.05, 0.25),
        dies=some(0.05, 0.15),
        offline=some(0.05, 0.15),
        stays_stopped=some(0.05, 0.2),
        stop_ignored=some(0.05, 0.2),
        touched=some(0.0, 0.1),
        relabelled=some(0.05, 0.2),
        list_empty=some(0.03, 0.15),
        list_short=some(0.03, 0.15),
    )


def _phases(chance: random.Random) -> tuple[Phase, ...]:
    levels = [0.0, 0.01, 0.03, 0.1, 0.3]
    count = chance.choice([2, 3, 4])
    return tuple(
        Phase(seconds=chance.choice([60.0, 180.0, 420.0]), requests_per_second=chance.choice(levels))
        for _ in range(count)
    )


def _events(chance: random.Random, storm: float) -> tuple[Event, ...]:
    makers: list[Callable[[random.Random], tuple[str, dict[str, Any]]]] = [
        lambda c: ("worker crash", {"seconds": c.choice([0.5, 3.0, 20.0, 90.0])}),
        lambda c: ("worker crash", {"seconds": c.choice([0.5, 3.0])}),
        lambda c: ("engine killed", {"seconds": c.choice([1.0, 10.0, 60.0])}),
        lambda c: ("engine restarted", {"seconds": c.choice([0.5, 5.0])}),
        lambda c: ("market outage", {"seconds": c.choice([20.0, 150.0, 400.0])}),
        lambda c: ("config", {"max_workers": c.choice([0, 1, 2, 5, 8])}),
        lambda c: ("config", {"min_workers": c.choice([0, 1, 3]), "min_load": c.choice([0.0, 1.0, 100.0])}),
        lambda c: ("config", {"dollars_per_hour_max": c.choice([0.3, 1.0, 4.0])}),
        lambda c: (
            "config",
            {"inactivity_timeout": c.choice([-1.0, 30.0, 600.0]), "cold_mult": c.choice([1.0, 3.0])},
        ),
        lambda c: (
            "state",
            {"endpoint_state": c.choice(["stopped", "suspended"]), "seconds": c.choice([60.0, 400.0])},
        ),
        lambda c: ("new template", {}),
        lambda c: ("update workers", {"cancel_after": c.choice([None, None, 30.0, 200.0])}),
        lambda c: ("burst of signals", {"count": c.choice([30, 150])}),
        lambda c: ("metrics from the past", {}),
        lambda c: ("nonsense", {}),
        lambda c: ("strange instance", {}),
        lambda c: ("rotate key", {}),
        lambda c: ("remove workergroup", {}),
    ]
    made = []
    for _ in range(chance.choice([2, 4, 7])):
        what, how = chance.choice(makers)(chance)
        made.append(Event(at=chance.uniform(30, storm), what=what, how=how))
    return tuple(sorted(made, key=lambda event: event.at))
