"""The demo's traffic: a burst from a real trace if it is available, else a similar generated one."""

import csv
import gzip
import os
import random
from dataclasses import dataclass
from pathlib import Path

TRACE_FILE = "azure_llm_2023_code.csv.gz"
WINDOW_SECONDS = (838.0, 962.0)
"""The part of the trace to play: little load, then 500 requests in 30 s, then a decay."""
SPEED = 2.0
"""The two minutes of the window are played in one."""
TOKENS_MIN, TOKENS_MAX = 8, 48


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of the demo."""

    at_s: float
    """Seconds from the start of the traffic."""
    tokens: int
    """Tokens to generate, which is the cost."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Arrivals, and a description of their source."""

    source: str
    arrivals: tuple[Arrival, ...]


def burst(*, requests: int, seed: int = 7) -> Traffic:
    """About `requests` arrivals over one minute, thinned evenly from the trace's window."""
    trace = _find_trace()
    if trace is None:
        return Traffic(
            f"generated: low load, a burst of 12 s, a decay (seed {seed})", _generated(requests, seed)
        )
    with gzip.open(trace, "rt") as file:
        rows = [(float(row["t_s"]), int(row["output_tokens"])) for row in csv.DictReader(file)]
    first, last = WINDOW_SECONDS
    window = [(at, tokens) for at, tokens in rows if first <= at < last]
    step = max(1.0, len(window) / requests)
    kept = [window[int(index * step)] for index in range(int(len(window) / step))]
    arrivals = tuple(Arrival((at - first) / SPEED, _bounded(tokens)) for at, tokens in kept)
    return Traffic(f"{trace.name}, {first:.0f}-{last:.0f} s, {len(kept)} of {len(window)} requests", arrivals)


def _bounded(tokens: int) -> int:
    return max(TOKENS_MIN, min(TOKENS_MAX, tokens))


def _find_trace() -> Path | None:
    folders = [Path(os.environ["STOKER_TRACES"])] if "STOKER_TRACES" in os.environ else []
    folders.append(Path(__file__).parents[2].parent / "shared" / "data" / "traces")
    for folder in folders:
        if (folder / TRACE_FILE).exists():
            return folder / TRACE_FILE
    return None


def _generated(requests: int, seed: int) -> tuple[Arrival, ...]:
    """10 % of the requests in 5 s of low load, 60 % in a burst of 12 s, the rest decaying over 40 s."""
    rng = random.Random(seed)
    low = [rng.uniform(0, 5) for _ in range(requests // 10)]
    peak = [rng.uniform(5, 17) for _ in range(requests * 6 // 10)]
    tail = [17 + 40 * rng.random() ** 2 for _ in range(requests * 3 // 10)]
    return tuple(Arrival(at, _bounded(int(rng.lognormvariate(3.0, 0.7)))) for at in sorted(low + peak + tail))
