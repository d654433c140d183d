"""Finds this machine's GPUs through NVML."""

import re
from dataclasses import dataclass

import structlog

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU."""

    index: int
    name: str
    ram_mb: float
    driver: str


def find_gpus() -> list[Gpu]:
    """Every GPU that NVML lists; empty, with a log line, if there is no driver."""
    try:
        import pynvml  # noqa: PLC0415  without the package, the machine still offers CPU slots

        pynvml.nvmlInit()
    except Exception as error:  # noqa: BLE001  NVML creates its error classes at run time
        log.info("no_gpus_found", reason=type(error).__name__)
        return []
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            name = _short_name(_text(pynvml.nvmlDeviceGetName(handle)))
            ram_mb = pynvml.nvmlDeviceGetMemoryInfo(handle).total / 2**20
            found.append(Gpu(index, name, float(ram_mb), driver))
        log.info("gpus_found", count=len(found), names=[gpu.name for gpu in found])
        return found
    except pynvml.NVMLError as error:
        log.warning("gpus_not_readable", reason=str(error))
        return []
    finally:
        pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _short_name(name: str) -> str:
    """`NVIDIA GeForce RTX 4090` → `RTX 4090`, as on the hosted marketplace, in characters that searches allow."""
    short = name.removeprefix("NVIDIA ").removeprefix("GeForce ")
    return re.sub(r"[^A-Za-z0-9 _.-]+", " ", short).strip(" _.-")[:64] or "GPU"
