"""Endpoints, workergroups and workers, as the engine's console API returns them."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, ConfigDict, Field, SecretStr

from stoker_wire.base import TolerantModel


class _Record(TolerantModel):
    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    broken: str = ""
    """Why the record is incomplete; "" for a complete record."""

    def as_json(self) -> dict[str, Any]:
        """The engine's row, without secrets."""
        return self.model_dump(mode="json", by_alias=False)


class EndpointRecord(_Record):
    """An endpoint: its id, its parameters, and (hidden in `repr` and JSON) the key that routes to it."""

    id: int
    endpoint_name: str
    api_key: SecretStr = SecretStr("")
    endpoint_state: str = "active"
    max_workers: int | None = None
    min_workers: int | None = Field(None, validation_alias=AliasChoices("min_workers", "cold_workers"))
    min_load: float | None = None
    target_util: float | None = None
    cold_mult: float | None = None
    min_cold_load: float | None = None
    inactivity_timeout: float | None = None
    max_queue_time: float | None = None
    target_queue_time: float | None = None

    @property
    def key(self) -> str:
        """The routing key as plain text."""
        return self.api_key.get_secret_value()

    def as_json(self, *, show_key: bool = False) -> dict[str, Any]:
        """The engine's row; the key only with `show_key`."""
        row = super().as_json()
        row["api_key"] = self.key if show_key else "(hidden)"
        return row


class WorkergroupRecord(_Record):
    """A workergroup."""

    id: int
    endpoint_id: int | None = None
    endpoint_name: str | None = None
    template_hash: str | None = None
    template_id: int | None = None
    search_params: Any = None
    launch_args: str | None = None
    gpu_ram: float | None = None
    warning: str = ""
    """Why no offer matched the search when the workergroup was created; "" if some did."""


class KeyRecord(_Record):
    """A named key of an endpoint, without its text."""

    name: str
    created_at: float = 0.0
    load_per_second: float | None = None
    dollars_per_day: float | None = None
    priority: str = "normal"
    dollars_today: float = 0.0


class WorkerRecord(_Record):
    """A worker, by the reports of the engine and the marketplace."""

    id: int
    status: str = ""
    cur_load: float = 0.0
    """Load, by its own report."""
    perf: float = 0.0
    """Expected performance, load/s."""
    measured_perf: float = 0.0
    """Performance by its own benchmark, load/s."""
    reqs_working: int = 0
    gpu_name: str | None = None
    dph_total: float | None = Field(None, validation_alias=AliasChoices("dph_total", "dollars_per_hour"))
    """$/h while running."""
    url: str | None = None


class OfferRecord(_Record):
    """A machine for rent, with the prices that a workergroup would pay."""

    id: int
    gpu_name: str = ""
    num_gpus: int = 1
    gpu_ram: float = 0.0
    """MiB per GPU; 0: no GPU."""
    cpu_ram: float | None = None
    """MB."""
    hot_dollars_per_hour: float = 0.0
    """While running, its disk included."""
    cold_dollars_per_hour: float = 0.0
    """While stopped: the disk."""
    inet_down: float | None = None
    """Mbit/s."""
    reliability: float | None = None
    geolocation: str | None = None
    machine_id: int | None = None

    @property
    def kind(self) -> str:
        """The machine kind, e.g. `2x RTX 4090`."""
        return f"{self.num_gpus}x {self.gpu_name}"


class TemplateRecord(_Record):
    """The code that an instance runs."""

    id: int = 0
    hash_id: str = ""
    name: str = ""
    image: str | None = None
    env: str | None = None
    onstart: str | None = None
    runtype: str | None = None
    recommended_disk_space: float | None = None


class Logs(_Record):
    """The log in four levels of detail; level 0 is for operators, level 3 has everything."""

    info0: str = ""
    info1: str = ""
    trace: str = ""
    debug: str = ""

    def level(self, number: int) -> str:
        """The text of one level, 0 to 3."""
        return (self.info0, self.info1, self.trace, self.debug)[number]
