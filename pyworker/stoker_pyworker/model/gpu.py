"""Reads the GPUs with NVML, in a thread and at a low rate. Read errors never stop the worker."""

import asyncio
import ctypes
import os
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

log = structlog.get_logger(component="gpu")

_POLL_SECONDS = 5.0
_GIB = 2**30
_BROKEN = {
    48: "a double-bit ECC error",
    64: "a failed row remapping",
    74: "an NVLink error",
    79: "fallen off the bus",
    95: "an uncontained ECC error",
    119: "a GSP timeout",
    120: "a GSP failure",
}
"""Xids of a broken GPU. Others (13, 31, 43, 45 …) are application errors, which the model server reports itself."""


class GpuReading(msgspec.Struct):
    """Current values of one GPU (`stoker_wire.worker_status.GpuStatus`)."""

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
    """The GPUs of the machine, if any."""

    def __init__(self, *, on_broken: Callable[[str], None] = lambda _: None) -> None:
        """`on_broken` is called with a message when a GPU reports an error that it does not recover from."""
        self.readings: tuple[GpuReading, ...] = ()
        self._on_broken = on_broken
        self._nvml: Any = None
        self._events: Any = None
        self._handles: dict[int, Any] = {}
        """By index."""
        self._xids: dict[int, int] = {}
        self._read_failed = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the GPUs, in order."""
        return tuple(reading.name for reading in self.readings)

    async def find(self) -> None:
        """Find the GPUs."""
        await asyncio.to_thread(self._find)

    async def watch(self) -> None:
        """Update the readings. Runs until cancelled, or returns at once without GPUs."""
        while self._nvml is not None:
            self.readings = await asyncio.to_thread(self._read_or_last)
            for reading in self.readings:
                if reading.xid in _BROKEN:
                    self._on_broken(
                        f"GPU {reading.index} ({reading.name}): Xid {reading.xid}, {_BROKEN[reading.xid]}"
                    )
            await asyncio.sleep(_POLL_SECONDS)

    def _find(self) -> None:
        try:
            # On a machine without a driver this takes a tenth of the time of importing the binding.
            ctypes.CDLL("libnvidia-ml.so.1")
            import pynvml  # noqa: PLC0415 - needs a driver

            pynvml.nvmlInit()
            visible = _visible()
            self._handles = {
                index: pynvml.nvmlDeviceGetHandleByIndex(index)
                for index in range(pynvml.nvmlDeviceGetCount())
                if visible is None or index in visible
            }
            self._nvml = pynvml
        except Exception as fault:  # noqa: BLE001 - no driver, no permission or another version
            log.info("no_gpu", reason=str(fault)[:200])
            return
        self._listen_for_xids()
        self.readings = self._read_or_last()
        log.info("gpus", names=list(self.names))

    def _listen_for_xids(self) -> None:
        nvml = self._nvml
        try:
            self._events = nvml.nvmlEventSetCreate()
            for handle in self._handles.values():
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
            for index, handle in self._handles.items():
                if _address(handle) == source:
                    self._xids[index] = int(event.eventData)
                    log.error("gpu_xid", gpu=index, xid=self._xids[index])

    def _read_or_last(self) -> tuple[GpuReading, ...]:
        """The current readings, or the last ones if the driver fails."""
        try:
            readings = self._read()
        except Exception as fault:  # noqa: BLE001 - a driver error; the model may still serve
            if not self._read_failed:
                log.warning("gpus_not_read", error=repr(fault)[:200])
            self._read_failed = True
            return self.readings
        self._read_failed = False
        return readings

    def _read(self) -> tuple[GpuReading, ...]:
        self._read_xids()
        return tuple(self._read_one(index, handle) for index, handle in self._handles.items())

    def _read_one(self, index: int, handle: Any) -> GpuReading:
        nvml = self._nvml

        def get(read: Any, default: Any = 0) -> Any:
            try:
                return read()
            except nvml.NVMLError:
                # Many cards lack a sensor (ECC, power); the others are still read.
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


def _visible() -> frozenset[int] | None:
    """The GPUs of the model, where several workers share a machine without containers; None: all."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").replace(" ", "").split(",")
    return frozenset(map(int, named)) if all(name.isdecimal() for name in named) else None


def _address(handle: Any) -> int | None:
    """The pointer inside an NVML handle, for comparison."""
    return ctypes.cast(handle, ctypes.c_void_p).value
