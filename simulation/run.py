"""One run of a trace, a fleet controller, a world and a seed; returns the figures."""

from simulation.scoring import RunScore, score
from simulation.settings import DEFAULT_WORLD, WorldSettings
from simulation.trace import Trace
from simulation.world import FleetController, Progress, World
from stoker_wire.endpoint import EndpointConfig

DEFAULT_CONFIG = EndpointConfig()


def run(
    trace: Trace,
    controller: FleetController,
    settings: WorldSettings = DEFAULT_WORLD,
    *,
    config: EndpointConfig = DEFAULT_CONFIG,
    seed: int = 0,
    warmup_seconds: float = 0.0,
    score_from: float = 0.0,
    progress: Progress | None = None,
) -> RunScore:
    """Runs the trace and scores it from `score_from` on. `config` gives the queue and inactivity times of the engine.

    The first `warmup_seconds` of the trace are played before it, unscored, because a trace has no earlier day.
    """
    played = with_warmup(trace, warmup_seconds) if warmup_seconds > 0 else trace
    world = World(
        played,
        controller,
        settings,
        config,
        seed=seed,
        score_from=warmup_seconds + score_from,
        progress=progress,
    )
    world.run()
    return score(world)


def with_warmup(trace: Trace, seconds: float) -> Trace:
    """The trace with its own beginning played before it."""
    head = trace.part(0.0, seconds)
    times = head.times + tuple(at + seconds for at in trace.times)
    return Trace(trace.name, times, head.works + trace.works, trace.seconds + seconds)
