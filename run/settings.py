"""`temporal-dev.yaml`: the settings of a development deployment, checked, with errors that say what to do."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from temporalio.common import WorkerDeploymentVersion

from activities.safety_nets import SweepSpec
from engine.settings import RequestLogSettings
from hosts.settings import GpuSettings, HostMarketSettings, MachineSettings, TemplateSettings
from market.vast.bodies import origin
from market.vast.client import VastMarket
from run.errors import CommandError
from run.yaml_files import read_yaml
from stoker_wire.base import StrictModel
from stoker_wire.messages import SEARCH_ATTRIBUTES
from stoker_wire.problem import describe
from stoker_wire.security.loopback import is_loopback

Port = Annotated[int, Field(ge=1, le=65535)]

PortOfInstance = Annotated[int, Field(ge=1024, le=65535)]
"""Below are those that only root may listen on."""

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_RETENTION = re.compile(r"^([0-9]{1,5})(h|d)$")


def bracketed(host: str) -> str:
    """The host as it stands before `:port`: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _listening(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not _HOST.fullmatch(value):
            raise ValueError(
                "should be an IP address, an IPv6 one without brackets, or a host's name"
            ) from None
    return value


def _host_name(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise ValueError("should be a host name without scheme and port, such as stoker.example.org")
    return value.lower()


def describe_model_error(fault: ValidationError) -> str:
    """What is wrong, where pydantic's own name of a whole model would tell a person nothing."""
    return describe(fault).replace("body: Value error, ", "")


def _loopback(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError as fault:
        raise ValueError("should be an IP address, such as 127.0.0.1") from fault
    if not is_loopback(value):
        raise ValueError(
            "should be a loopback address: the Temporal dev server has neither TLS nor authorisation, "
            "so whoever reaches its port owns it. For other hosts run a real Temporal cluster"
        )
    return value


class TemporalSettings(StrictModel):
    """The Temporal dev server. The names are those of `temporal server start-dev`'s flags."""

    ip: Annotated[str, AfterValidator(_loopback)] = "127.0.0.1"
    port: Port = 7233
    ui_port: Port | None = 8233
    """None: no UI."""
    db_filename: str | None = "temporal.db"
    """Inside the state folder. None: in memory, nothing survives."""
    namespace: str = Field("stoker", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{1,253}$")
    retention: str = Field("72h", pattern=_RETENTION.pattern)
    """How long closed workflows stay readable: `72h`, `7d`."""
    sqlite_pragma: dict[str, str | int] = {"journal_mode": "wal", "synchronous": 1}
    search_attributes: dict[
        str, Literal["Bool", "Datetime", "Double", "Int", "Keyword", "KeywordList", "Text"]
    ] = Field(default_factory=lambda: dict(SEARCH_ATTRIBUTES))  # type: ignore[arg-type]
    dynamic_config: dict[str, Any] = {}
    """Server settings by key. The server ignores a misspelt key silently."""
    log_level: Literal["debug", "info", "warn", "error", "never"] = "warn"

    @model_validator(mode="after")
    def _names_what_the_workflows_set(self) -> Self:
        for name, kind in SEARCH_ATTRIBUTES.items():
            given = self.search_attributes.get(name)
            if given != kind:
                raise ValueError(
                    f"search_attributes should name {name}: {kind} (got {given}); the workflows set it"
                )
        return self

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return f"{bracketed(self.ip)}:{self.port}"

    @property
    def ui_url(self) -> str | None:
        """Where a browser finds the UI, if there is one."""
        return None if self.ui_port is None else f"http://{bracketed(self.ip)}:{self.ui_port}"

    @property
    def retention_hours(self) -> int:
        """The retention in hours."""
        match = _RETENTION.match(self.retention)
        assert match is not None
        return int(match[1]) * (24 if match[2] == "d" else 1)


class RequestLog(StrictModel):
    """The engine's record of requests, which `stokerd simulate` reads. Each engine of a machine needs its own path."""

    path: Path = Path("requests.jsonl")
    """Inside the state folder."""
    file_megabytes_max: float = Field(64.0, gt=0, le=100_000)
    """Then the next file is begun; a request takes about 120 bytes."""
    files_max: int = Field(8, ge=1, le=1000)
    """The oldest is removed."""


class ListenLimits(StrictModel):
    """What strangers may hold; each passed limit is answered with a problem that names it."""

    connections_max: int = Field(40_000, ge=16)
    """Open at once; one that only idles makes room for a new one. The process's open files may allow fewer."""
    idle_seconds_max: float = Field(75.0, gt=0)
    """Before the first request of a connection, and between two."""
    head_seconds_max: float = Field(10.0, gt=0)
    """For the head of a request to arrive."""
    body_seconds_max: float = Field(30.0, gt=0)
    """For the body of a request to arrive."""
    body_bytes_max: int = Field(1024 * 1024, ge=4096)
    """Of a control call."""
    openai_body_bytes_max: int = Field(32 * 1024 * 1024, ge=4096)
    """Of a call through `/openai/…`."""
    openai_held_bytes_max: int = Field(256 * 1024 * 1024, ge=4096)
    """Of all calls through `/openai/…` together, while they wait for a worker or for its first byte. Those of one
    account may hold as much as they leave free: half of it, if nobody else waits."""


class EngineListen(StrictModel):
    """Where the engine listens, and where workers and clients reach it."""

    host: Annotated[str, AfterValidator(_listening)] = "127.0.0.1"
    port: Port = 8080
    public_url: str | None = Field(None, pattern=r"^https?://[^/]+(/[^/]+)*$")
    """What workers report to; no trailing slash. None: http://<host>:<port>."""
    allowed_hosts: tuple[Annotated[str, AfterValidator(_host_name)], ...] = ()
    """Further host names under which clients reach the engine: requests that name another host are refused, because a
    web page can point its own name at this address. IP addresses and the host of `public_url` are always accepted."""
    limits: ListenLimits = ListenLimits()
    memo_trust_seconds: float | None = Field(15.0, ge=0)
    """How long after its start an engine routes to workers that it has not heard itself. None: always, which several engines
    need, for each hears only the workers whose reports reach it."""
    request_log: RequestLog | None = None
    """None: requests are not recorded."""

    @property
    def url(self) -> str:
        """Where others reach it."""
        return self.public_url or self.own_url

    @property
    def own_url(self) -> str:
        """Where this machine reaches it, whatever stands in front of it for others."""
        return f"http://{bracketed(self.host)}:{self.port}"


class HostMarket(StrictModel):
    """The marketplace of this machine: its machines with their prices, and ready-made templates."""

    port: Port = 8091
    machines: tuple[MachineSettings, ...] = ()
    gpus: GpuSettings = GpuSettings()
    """How this machine's GPUs, as NVML finds them, are offered."""
    templates: tuple[TemplateSettings, ...] = ()
    instance_port_min: PortOfInstance = 21000
    instance_port_max: PortOfInstance = 29999
    stop_grace_seconds: float = Field(5.0, ge=0, le=600)


class MarketChoice(StrictModel):
    """Which marketplace the workers are rented on."""

    kind: Literal["host", "vast"] = "host"
    url: str = "https://console.vast.ai"
    """Of the Vast REST API; for `host` it follows from `host_market.port`."""
    calls_per_second_max: float = Field(20.0, gt=0, le=1000)
    """For the whole deployment, held by the market task queue."""

    @model_validator(mode="after")
    def _url_is_an_address(self) -> Self:
        # Checked here and not by the field: a field's error would repeat the password that it refuses.
        where = origin(self.url)
        secret = any(mark in self.url for mark in "@?#")
        if where is None or where[2] > 65535 or secret:
            got = "what came holds more" if secret else f"got {self.url!r:.80}"
            raise ValueError(
                f"url should be http[s]://host[:port], without user, password, query or fragment ({got})"
            )
        return self


class WorkerChoice(StrictModel):
    """Whether Temporal tells builds of the worker apart, so that running endpoints can be moved from one to another."""

    deployment: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,200}$")
    """The worker deployment's name. None: not versioned, every worker carries every workflow."""
    build_id: str | None = Field(None, pattern=r"^[A-Za-z0-9_.+-]{1,200}$")
    """Of the code that this worker is; `stokerd worker --build-id` and STOKER_BUILD_ID go before it."""

    def version(self) -> WorkerDeploymentVersion | None:
        """What the worker calls itself.

        Raises:
            CommandError: a deployment without a build.
        """
        if self.deployment is None:
            return None
        if self.build_id is None:
            raise CommandError(
                f"worker.deployment is {self.deployment}, but no build is named; give --build-id, "
                "STOKER_BUILD_ID, or worker.build_id"
            )
        return WorkerDeploymentVersion(self.deployment, self.build_id)


class SweepSettings(StrictModel):
    """The sweep releases instances that no endpoint looks after: the endpoint's workflow is gone, or makes no progress."""

    every_seconds: float = Field(300.0, gt=0, le=86_400)
    """Between two sweeps. Doubled: such instances are paid for up to 300 s longer."""
    young_seconds: float = Field(600.0, ge=0, le=86_400)
    """An instance younger than this is left alone while its endpoint is not found."""
    stuck_seconds: float = Field(1800.0, gt=0, le=86_400)
    """An endpoint whose workflow completed no workflow task for this long loses its machines; its config is kept."""
    stuck_end_seconds: float = Field(86_400.0, gt=0, le=2_592_000)
    """A workflow without progress for this long is terminated. Until then a repaired build carries the endpoint on."""
    ensure_seconds: float = Field(60.0, gt=0, le=3600)
    """Every Temporal worker and every engine looks this often whether the sweep runs, and starts it again."""

    @property
    def spec(self) -> SweepSpec:
        """As the sweep takes it."""
        return SweepSpec(
            every_seconds=self.every_seconds,
            young_seconds=self.young_seconds,
            stuck_seconds=self.stuck_seconds,
            stuck_end_seconds=self.stuck_end_seconds,
        )


class DevSettings(StrictModel):
    """Everything in `temporal-dev.yaml`."""

    state_dir: Path = Path(".stoker")
    """Keys, databases, logs and disks of the host marketplace. Relative to the file."""
    temporal: TemporalSettings = TemporalSettings()
    engine: EngineListen = EngineListen()
    worker: WorkerChoice = WorkerChoice()
    sweep: SweepSettings = SweepSettings()
    market: MarketChoice = MarketChoice()
    host_market: HostMarket = HostMarket()

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = {
            "temporal.port": self.temporal.port,
            "temporal.ui_port": self.temporal.ui_port,
            "engine.port": self.engine.port,
        }
        if self.market.kind == "host":
            ports["host_market.port"] = self.host_market.port
        taken: dict[int, str] = {}
        for name, port in ports.items():
            if port is not None and (other := taken.setdefault(port, name)) != name:
                raise ValueError(f"{other} and {name} are both {port}; give each its own port")
        return self

    @model_validator(mode="after")
    def _host_market_can_be(self) -> Self:
        try:
            self.host_market_settings(market_key="checked-before-it-runs", env={})
        except ValidationError as fault:
            raise ValueError(f"host_market: {describe_model_error(fault)}") from None
        return self

    def with_build(self, build_id: str | None) -> Self:
        """The same with this build, if it is one.

        Raises:
            CommandError: it cannot be one.
        """
        if build_id is None:
            return self
        try:
            worker = WorkerChoice(deployment=self.worker.deployment, build_id=build_id)
        except ValidationError as fault:
            raise CommandError(f"--build-id: {describe(fault)}") from fault
        return self.model_copy(update={"worker": worker})

    def host_market_settings(self, *, market_key: str, env: dict[str, str]) -> HostMarketSettings:
        """The host marketplace's own settings; `env` is what every instance finds in its environment."""
        host = self.host_market
        return HostMarketSettings(
            state_dir=self.state_dir / "market",
            api_keys=(SecretStr(market_key),),
            port_min=host.instance_port_min,
            port_max=host.instance_port_max,
            machines=host.machines,
            gpus=host.gpus,
            templates=host.templates,
            env=env,
            stop_grace_seconds=host.stop_grace_seconds,
        )

    @property
    def request_log_settings(self) -> RequestLogSettings | None:
        """The engine's record of requests, if one is wanted."""
        wanted = self.engine.request_log
        if wanted is None:
            return None
        return RequestLogSettings(
            path=self.state_dir / wanted.path,
            file_bytes_max=max(int(wanted.file_megabytes_max * 1_000_000), 1024),
            files_max=wanted.files_max,
        )

    @property
    def hosted_market(self) -> bool:
        """Whether the marketplace is somebody else's."""
        return self.market.kind == "vast"

    @property
    def market_url(self) -> str:
        """The marketplace's base url."""
        if self.market.kind == "host":
            return f"http://127.0.0.1:{self.host_market.port}"
        return self.market.url

    def market_client(self, key: str) -> VastMarket:
        """A client of the marketplace with this API key.

        Raises:
            CommandError: the environment names a proxy that cannot be used.
        """
        try:
            return VastMarket(self.market_url, key)
        except ValueError as fault:
            raise CommandError(str(fault)) from fault


def load_settings(path: Path) -> DevSettings:
    """The settings in the file.

    Raises:
        CommandError: no such file, not YAML, or a value that cannot be; the message names file, field, and what was expected.
    """
    data = read_yaml(path, "the settings of a deployment (give the file with --config)")
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise CommandError(f"{path} should hold a mapping of settings, got {type(data).__name__}")
    try:
        settings = DevSettings.model_validate(data)
    except ValidationError as fault:
        raise CommandError(f"{path}: {describe(fault)}") from fault
    try:
        state_dir = (path.parent / settings.state_dir).resolve()
    except (OSError, ValueError) as fault:
        raise CommandError(
            f"{path}: state_dir: {str(settings.state_dir)!r} cannot be a folder: {fault}"
        ) from fault
    return settings.model_copy(update={"state_dir": state_dir})
