"""What NVML says about the GPUs: asked in a thread, at a low rate, and never a reason to fail."""

import asyncio
import ctypes
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

log = structlog.get_logger(room="gpu")

_POLL_SECONDS = 5.0
_GIB = 2**30
_BROKEN = {
    48: "a double-bit ECC error",
    64: "a failed row remapping",
    74: "an NVLink error",
    79: "it has fallen off the bus",
    95: "an uncontained ECC error",
    119: "its system processor does not answer",
    120: "its system processor failed",
}
"""Xids of a broken GPU. Others (13, 31, 43, 45 …) are a program's faults, which the model server shows by itself."""


class GpuReading(msgspec.Struct):
    """One GPU now (`stoker_wire.worker_status.GpuStatus`)."""

    index: int
    name: str
    utilization_percent: float = 0.0
    memory_used_gib: float = 0.0
    memory_total_gib: float = 0.0
    power_watts: float = 0.0
    temperature_celsius: float = 0.0
    ecc_errors: int = 0
    xid: int = 0


class Gpus:
    """The machine's GPUs; none is a machine too."""

    def __init__(self) -> None:
        self.readings: tuple[GpuReading, ...] = ()
        self.broken: Callable[[str], None] = lambda _: None
        """Called with a sentence when a GPU reports a fault that it does not recover from."""
        self._nvml: Any = None
        self._events: Any = None
        self._handles: list[Any] = []
        self._xids: dict[int, int] = {}
        self._fails = False

    @property
    def names(self) -> tuple[str, ...]:
        """The GPUs' names, in order."""
        return tuple(reading.name for reading in self.readings)

    async def find(self) -> None:
        """Look which GPUs there are."""
        await asyncio.to_thread(self._find)

    async def watch(self) -> None:
        """Keep the readings fresh, for as long as the worker runs."""
        while self._nvml is not None:
            self.readings = await asyncio.to_thread(self._look)
            for reading in self.readings:
                if reading.xid in _BROKEN:
                    self.broken(
                        f"GPU {reading.index} ({reading.name}): Xid {reading.xid}, {_BROKEN[reading.xid]}"
                    )
            await asyncio.sleep(_POLL_SECONDS)

    def _find(self) -> None:
        try:
            # A tenth of the time of importing the binding, on the many machines without a driver.
            ctypes.CDLL("libnvidia-ml.so.1")
            import pynvml  # noqa: PLC0415 - only where there is a driver

            pynvml.nvmlInit()
            self._handles = [
                pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
            ]
            self._nvml = pynvml
        except Exception as fault:  # noqa: BLE001 - no driver, no permission, another version: all mean no figures
            log.info("no_gpu", reason=str(fault)[:200])
            return
        self._listen_for_xids()
        self.readings = self._look()
        log.info("gpus", names=list(self.names))

    def _listen_for_xids(self) -> None:
        nvml = self._nvml
        try:
            self._events = nvml.nvmlEventSetCreate()
            for handle in self._handles:
                nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, self._events)
        except nvml.NVMLError as fault:
            self._events = None
            log.info("no_xid_events", reason=str(fault))

    def _read_xids(self) -> None:
        nvml = self._nvml
        while self._events is not None:
            try:
                event = nvml.nvmlEventSetWait_v2(self._events, 0)
            except nvml.NVMLError:
                return
            source = _address(event.device)
            for index, handle in enumerate(self._handles):
                if _address(handle) == source:
                    self._xids[index] = int(event.eventData)
                    log.error("gpu_xid", gpu=index, xid=self._xids[index])

    def _look(self) -> tuple[GpuReading, ...]:
        """The readings now, or the last ones where the driver fails."""
        try:
            readings = self._read()
        except Exception as fault:  # noqa: BLE001 - another driver's surprise; the model may serve all the same
            if not self._fails:
                log.warning("gpus_not_read", error=repr(fault)[:200])
            self._fails = True
            return self.readings
        self._fails = False
        return readings

    def _read(self) -> tuple[GpuReading, ...]:
        self._read_xids()
        return tuple(self._read_one(index, handle) for index, handle in enumerate(self._handles))

    def _read_one(self, index: int, handle: Any) -> GpuReading:
        nvml = self._nvml

        def get(read: Any, default: Any = 0) -> Any:
            try:
                return read()
            except nvml.NVMLError:
                # Many cards lack one sensor or the other (no ECC, no power meter); the others still count.
                return default

        name = get(lambda: nvml.nvmlDeviceGetName(handle), "unknown GPU")
        memory = get(lambda: nvml.nvmlDeviceGetMemoryInfo(handle), None)
        rates = get(lambda: nvml.nvmlDeviceGetUtilizationRates(handle), None)
        ecc = get(
            lambda: nvml.nvmlDeviceGetTotalEccErrors(
                handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
            )
        )
        return GpuReading(
            index=index,
            name=name.decode() if isinstance(name, bytes) else str(name),
            utilization_percent=float(rates.gpu) if rates else 0.0,
            memory_used_gib=memory.used / _GIB if memory else 0.0,
            memory_total_gib=memory.total / _GIB if memory else 0.0,
            power_watts=get(lambda: nvml.nvmlDeviceGetPowerUsage(handle)) / 1000,
            temperature_celsius=float(
                get(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
            ),
            ecc_errors=int(ecc),
            xid=self._xids.get(index, 0),
        )


def _address(handle: Any) -> int | None:
    """The pointer inside an NVML handle, by which handles can be compared."""
    return ctypes.cast(handle, ctypes.c_void_p).value
