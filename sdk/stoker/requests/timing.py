"""The parts of an answer's latency."""

from __future__ import annotations

from dataclasses import dataclass

from stoker_wire.parsing.numbers import read_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The parts add up to `total_s`. A part that the worker did not measure is None and counts as network.

    All in seconds. The worker measures `queued_s` and `model_s`; the client measures the others.
    """

    total_s: float
    waited_s: float
    """In the engine until a worker was free, over all attempts."""
    lost_s: float = 0.0
    """On workers that refused or dropped the request, and in the pauses that followed."""
    queued_s: float | None = None
    """In the queue of the worker that answered."""
    model_s: float | None = None
    """In the model server; for a stream, until its first byte."""
    network_s: float = 0.0
    """The rest: connections, transfers, overhead of the worker."""

    def __str__(self) -> str:
        """One line for display."""
        parts = [f"{self.total_s:.3f} s", f"waited {self.waited_s:.3f}"]
        if self.lost_s:
            parts.append(f"lost {self.lost_s:.3f}")
        if self.queued_s is not None:
            parts.append(f"queued {self.queued_s:.3f}")
        if self.model_s is not None:
            parts.append(f"model {self.model_s:.3f}")
        parts.append(f"network {self.network_s:.3f}")
        return f"{parts[0]} ({', '.join(parts[1:])})"


def split_time(*, total_s: float, waited_s: float, lost_s: float, server_timing: str) -> Timing:
    """The timing of an answer with the worker's header `Server-Timing: queue;dur=…, model;dur=…` (ms).

    The worker's figures are bounded by the duration of its call, so that no part is negative when the clocks of the two
    machines differ.
    """
    reported = read_server_timing(server_timing)
    left = max(0.0, total_s - waited_s - lost_s)
    parts: dict[str, float | None] = {}
    for name in ("queue", "model"):
        seconds = reported.get(name)
        if seconds is not None:
            seconds = min(seconds, left)
            left -= seconds
        parts[name] = seconds
    return Timing(
        total_s=total_s,
        waited_s=waited_s,
        lost_s=lost_s,
        queued_s=parts["queue"],
        model_s=parts["model"],
        network_s=left,
    )


def read_server_timing(text: str) -> dict[str, float]:
    """Metric name → seconds; metrics without a valid duration are left out."""
    found: dict[str, float] = {}
    for metric in text.split(","):
        name, *parameters = (part.strip() for part in metric.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip().lower() == "dur":
                milliseconds = read_number(value.strip().strip('"'))
                if milliseconds is not None and milliseconds >= 0:
                    found[name] = milliseconds / 1000
    return found
