"""This machine's GPUs, by NVML."""

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
    """Every GPU that NVML names; none, with a line in the log, where there is no driver."""
    try:
        import pynvml  # noqa: PLC0415  a machine without the package still has CPU slots

        pynvml.nvmlInit()
    except Exception as error:  # noqa: BLE001  NVML's errors are made at run time and differ by version
        log.info("no_gpus_found", reason=type(error).__name__)
        return []
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            name = _plain(_text(pynvml.nvmlDeviceGetName(handle)))
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


def _plain(name: str) -> str:
    """`NVIDIA GeForce RTX 4090` → `RTX 4090`, as the hosted marketplace calls it, in characters that a search can hold."""
    short = name.removeprefix("NVIDIA ").removeprefix("GeForce ")
    return re.sub(r"[^A-Za-z0-9 _.-]+", " ", short).strip(" _.-")[:64] or "GPU"
