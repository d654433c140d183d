"""Facts about the machine of a measurement."""

import os
import platform
from pathlib import Path


def facts() -> str:
    """CPU, cores, memory, Python, load now."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or "unknown CPU",
    )
    memory = next(
        (int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0
    )
    return (
        f"{cpu}, {os.cpu_count()} cores, {memory / 1024**2:.0f} GiB, Python {platform.python_version()}, "
        f"Linux {platform.release()}, load {os.getloadavg()[0]:.2f}"
    )


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    for line in _lines(f"/proc/{pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_seconds(pid: int) -> float:
    """CPU seconds that a process has used."""
    return sum(cpu_times(pid))


def cpu_times(pid: int) -> tuple[float, float]:
    """CPU seconds that a process has used in its own code, and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / ticks, int(fields[12]) / ticks


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
