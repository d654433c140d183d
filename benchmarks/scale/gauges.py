"""CPU, memory and lag during the measurement."""

import asyncio
import os
import time
from collections import defaultdict
from dataclasses import dataclass, field

from benchmarks.engine.machine import cpu_seconds, rss_mib

SAMPLE_SECONDS = 2.0


@dataclass
class Gauges:
    """One sample every two seconds of the named processes."""

    pids: dict[str, int]
    began: float = field(default_factory=time.monotonic)
    rss_mib_max: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    load_averages: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    """Delay of the load generator's own event loop, seconds; it is part of every latency."""
    _cpu: dict[str, float] = field(default_factory=dict)
    cpu_cores: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._cpu = {name: cpu_seconds(pid) for name, pid in self.pids.items()}
        self._machine = machine_busy_seconds()

    async def run(self) -> None:
        """Samples until cancelled."""
        last = time.monotonic()
        while True:
            wanted = time.monotonic() + 0.05
            await asyncio.sleep(0.05)
            self.lags.append(time.monotonic() - wanted)
            if time.monotonic() - last < SAMPLE_SECONDS:
                continue
            last = time.monotonic()
            self.load_averages.append(os.getloadavg()[0])
            for name, pid in self.pids.items():
                self.rss_mib_max[name] = max(self.rss_mib_max[name], rss_mib(pid))

    def stop(self) -> None:
        """Ends the measurement window."""
        self.seconds = time.monotonic() - self.began
        used = {name: cpu_seconds(pid) - self._cpu[name] for name, pid in self.pids.items()}
        self.cpu_cores = {name: cpu / self.seconds for name, cpu in used.items()}
        ours = sum(self.cpu_cores.values())
        self.others_cores = (machine_busy_seconds() - self._machine) / self.seconds - ours


def machine_busy_seconds() -> float:
    """CPU time of all processes of this machine, seconds."""
    with open("/proc/stat", encoding="ascii") as file:  # noqa: PTH123
        fields = [int(word) for word in file.readline().split()[1:]]
    idle = fields[3] + fields[4]
    return (sum(fields[:8]) - idle) / os.sysconf("SC_CLK_TCK")


def quantile(ordered: list[float], q: float) -> float:
    """Quantile of a sorted list; NaN if it is empty."""
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")
