"""Settings of the host marketplace: machines, prices, templates. `run/` reads them from a file."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from market.query import GrammarError, parse_env
from stoker_wire.base import StrictModel
from stoker_wire.security.loopback import is_loopback

PORTS_PER_INSTANCE = 10
"""First: worker; second: its plain HTTP port; third: model server; tenth: bound by the marketplace as reservation."""

KEY_LENGTH_MIN = 8


class MachineSettings(StrictModel):
    """One kind of machine. `count` slots of it are offered; each can be rented once at a time."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]*$")
    """The offer's `gpu_name`."""
    count: int = Field(1, ge=1, le=1000)
    dollars_per_hour: float = Field(gt=0)
    """While running, without its disk."""
    min_bid_dollars_per_hour: float | None = Field(None, gt=0)
    """Minimum price of an interruptible instance; None: no bids are accepted."""
    storage_dollars_per_gb_month: float = Field(0.1, ge=0)
    cpu_percent: float | None = Field(None, gt=0, le=6400)
    """Upper limit of an instance's CPU time, in percent of one CPU; None: no limit."""
    gpu_ram_mb: float | None = Field(None, ge=0)
    """Memory of one GPU; None: what NVML reports, divided among the slots that share the GPU."""
    num_gpus: int = Field(1, ge=1, le=64)
    """GPUs of each slot."""
    gpu_indices: tuple[Annotated[int, Field(ge=0, lt=1024)], ...] = ()
    """NVML indices of the kind's GPUs. Each slot gets the next `num_gpus` of them; further slots share them. Empty: CPU
    slots."""
    dlperf: float = Field(1.0, ge=0)
    reliability: float = Field(0.99, ge=0, le=1)
    disk_gb: float = Field(64.0, gt=0)
    pull_mb: float = Field(0.0, ge=0, le=65536)
    """Size of the image. This many MB are written to the instance's disk before its first start."""
    pull_mb_per_second: float = Field(100.0, gt=0)
    geolocation: str = "Local, XX"

    @property
    def kind(self) -> str:
        """The machine kind, e.g. `2x RTX 4090`."""
        return f"{self.num_gpus}x {self.name}"

    def gpus_of(self, slot: int) -> tuple[int, ...]:
        """NVML indices of the GPUs of a slot."""
        groups = len(self.gpu_indices) // self.num_gpus
        first = slot % groups * self.num_gpus if groups else 0
        return self.gpu_indices[first : first + self.num_gpus]

    @property
    def slots_per_gpu(self) -> int:
        """How many slots share a GPU."""
        groups = len(self.gpu_indices) // self.num_gpus
        return -(-self.count // groups) if groups else 1

    @model_validator(mode="after")
    def _gpus_fill_the_slots(self) -> Self:
        if len(set(self.gpu_indices)) != len(self.gpu_indices):
            raise ValueError(f"{self.name}: gpu_indices names a GPU twice")
        if len(self.gpu_indices) % self.num_gpus:
            raise ValueError(
                f"{self.name}: gpu_indices names {len(self.gpu_indices)} GPUs, which slots of num_gpus {self.num_gpus}"
                " cannot share evenly: name a multiple"
            )
        return self


class GpuSettings(StrictModel):
    """Terms for GPUs that NVML finds and that no entry of `machines` names.

    Equal GPUs are offered singly and in groups of 2, 4, 8 …; renting one offer withdraws those that share a GPU with it.
    """

    enabled: bool = True
    dollars_per_hour: float = Field(0.5, gt=0)
    """Per GPU."""
    storage_dollars_per_gb_month: float = Field(0.1, ge=0)
    dlperf: float = Field(100.0, ge=0)
    """Per GPU."""
    reliability: float = Field(0.99, ge=0, le=1)
    disk_gb: float = Field(64.0, gt=0)


class TemplateSettings(StrictModel):
    """A template that the marketplace has from its start."""

    name: str = Field(min_length=1, max_length=255)
    image: str = Field("host", min_length=1, max_length=512)
    tag: str | None = None
    env: str = Field("", max_length=65536)
    """Docker flags: `-e A=b -p 3000:3000`."""
    onstart: str | None = Field(None, max_length=65536)
    """The start command, run with bash."""
    args_str: str | None = Field(None, max_length=65536)
    runtype: str = "args"
    extra_filters: str | None = None
    """A JSON object of search filters."""
    recommended_disk_space: float = Field(8.0, gt=0)
    hash_id: str | None = Field(None, pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """The template's hash in the API; None: derived from its content."""

    @model_validator(mode="after")
    def _env_can_be_read(self) -> Self:
        try:
            parse_env(self.env)
        except GrammarError as error:
            raise ValueError(f"env: {error}") from None
        return self


class HostMarketSettings(StrictModel):
    """Settings of the host marketplace."""

    state_dir: Path
    """Records, disks and logs of the instances; readable by its owner only."""
    api_keys: tuple[SecretStr, ...] = Field(min_length=1)
    public_ip: str = Field("127.0.0.1", min_length=1)
    """Address under which clients reach the instances."""
    port_min: int = Field(21000, ge=1024, le=65535)
    port_max: int = Field(29999, ge=1024, le=65535)
    machines: tuple[MachineSettings, ...] = ()
    gpus: GpuSettings = GpuSettings()
    templates: tuple[TemplateSettings, ...] = ()
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    """Environment of every instance, as an image would set it; templates and launches override it."""
    stop_grace_seconds: float = Field(5.0, ge=0, le=600)
    """Time between SIGTERM and SIGKILL."""
    instances_on_exit: Literal["stop", "keep"] = "stop"
    """What happens to running instances when the marketplace stops."""
    volumes_gb_max: float = Field(200.0, ge=0)
    """Disk for all volumes; those unused for longest are dropped first."""
    cpu_limit: Literal["auto", "governor", "off"] = "auto"
    """`auto`: a control group if one is writable, else the governor (SIGSTOP and SIGCONT)."""

    @property
    def listen_host(self) -> str | None:
        """The address that instances must listen on if clients reach them on loopback; None: all interfaces."""
        return self.public_ip if is_loopback(self.public_ip) else None

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.port_max - self.port_min + 1 < PORTS_PER_INSTANCE:
            raise ValueError(
                f"ports {self.port_min}-{self.port_max} are fewer than the {PORTS_PER_INSTANCE} of one instance"
            )
        # Not a field constraint: its error message would contain the key.
        if any(len(key.get_secret_value()) < KEY_LENGTH_MIN for key in self.api_keys):
            raise ValueError(f"api_keys: a key has at least {KEY_LENGTH_MIN} characters")
        kinds = [machine.kind.replace("_", " ") for machine in self.machines]
        if len(set(kinds)) != len(kinds):
            raise ValueError("two machines have the same name and num_gpus: give each kind its own name")
        return self
