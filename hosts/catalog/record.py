"""The stored record of an instance, and the meter of its billed time."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

HOURS_PER_MONTH = 730.0
"""Converts disk prices ($ per GB and month) to hours."""

IntendedStatus = Literal["running", "stopped"]
ActualStatus = Literal["loading", "running", "stopped", "exited", "rebooting", "offline"]

GPU_BILLED: frozenset[str | None] = frozenset({"loading", "running", "rebooting"})


class Meter(BaseModel):
    """Billed seconds of machine and disk, and the dollars of machine time. Times are Unix seconds."""

    gpu_seconds: float = 0.0
    gpu_dollars: float = 0.0
    gpu_since: float | None = None
    storage_since: float = 0.0
    storage_until: float | None = None

    def settle(self, now: float, dollars_per_hour: float) -> None:
        """Bill the machine time up to now at this price."""
        if self.gpu_since is not None:
            seconds = max(0.0, now - self.gpu_since)
            self.gpu_seconds += seconds
            self.gpu_dollars += seconds / 3600 * dollars_per_hour
            self.gpu_since = now

    def switch(self, billed: bool, now: float, dollars_per_hour: float) -> None:
        """Start or stop billing the machine."""
        self.settle(now, dollars_per_hour)
        self.gpu_since = now if billed else None

    def storage_seconds_at(self, now: float) -> float:
        """Seconds of disk time up to now, or up to the instance's end."""
        return max(0.0, (self.storage_until if self.storage_until is not None else now) - self.storage_since)


class InstanceRecord(BaseModel):
    """One rented slot. It is stored, and holds what a restarted marketplace needs to adopt the process."""

    model_config = ConfigDict(validate_assignment=False)

    id: int
    offer_id: int
    machine: str
    slot: int
    num_gpus: int = 1
    gpu_indices: tuple[int, ...] = ()
    """NVML indices of its GPUs, fixed at creation; empty: a CPU slot."""
    created_at: float
    label: str | None = None
    template_id: int | None = None
    template_hash: str | None = None
    image: str = "host"
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    """The template's variables, overridden by those of the create call."""
    onstart: str | None = Field(None, repr=False)
    args: tuple[str, ...] = Field((), repr=False)
    runtype: str = "args"
    disk_gb: float = 8.0
    is_bid: bool = False
    dollars_per_hour: float
    """Price of the machine without disk, fixed at creation."""
    storage_dollars_per_hour: float
    api_key: str = Field(repr=False)
    """`CONTAINER_API_KEY`: authorises calls for this instance only."""

    intended: IntendedStatus = "running"
    actual: ActualStatus | None = None
    status_msg: str = ""
    start_date: float | None = None
    pulled: bool = False
    hold_reason: str = ""
    """Why the instance does not run although it should: `exited`, `offline` or `scheduling`; empty: it may run."""

    port_base: int = 0
    pid: int | None = None
    pid_started: int = 0
    """The process's start time in clock ticks since boot; with the pid it identifies the process."""
    boot_id: str = ""
    meter: Meter = Field(default_factory=Meter)

    @property
    def kind(self) -> str:
        """The machine kind, e.g. `2x RTX 4090`."""
        return f"{self.num_gpus}x {self.machine}"

    @property
    def dollars_per_hour_total(self) -> float:
        """Price while running, disk included."""
        return self.dollars_per_hour + self.storage_dollars_per_hour

    def set_actual(self, actual: ActualStatus | None, now: float, message: str = "") -> None:
        """Set the status and update the meter."""
        self.actual = actual
        self.status_msg = message
        self.meter.switch(actual in GPU_BILLED, now, self.dollars_per_hour)

    def charge(self, now: float) -> dict[str, Any]:
        """The cost of the instance so far, as a row of the API."""
        meter = self.meter.model_copy()
        meter.settle(now, self.dollars_per_hour)
        storage_seconds = meter.storage_seconds_at(now)
        storage = storage_seconds / 3600 * self.storage_dollars_per_hour
        return {
            "id": self.id,
            "label": self.label,
            "gpu_name": self.machine,
            "dph_base": self.dollars_per_hour,
            "storage_total_cost": self.storage_dollars_per_hour,
            "gpu_seconds": round(meter.gpu_seconds, 3),
            "storage_seconds": round(storage_seconds, 3),
            "gpu_dollars": meter.gpu_dollars,
            "storage_dollars": storage,
            "dollars": meter.gpu_dollars + storage,
            "destroyed": self.meter.storage_until is not None,
            "start": self.meter.storage_since,
            "end": self.meter.storage_until if self.meter.storage_until is not None else now,
        }
