"""The settings in `temporal-dev.yaml`."""

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from temporalio.common import WorkerDeploymentVersion

from activities.sweep_watchdog import SweepSpec
from engine.settings import RequestLogSettings
from hosts.settings import GpuSettings, HostMarketSettings, MachineSettings, TemplateSettings
from market.vast.bodies import origin
from market.vast.client import VastMarket
from run.errors import CommandError
from run.notifications import NotifySettings
from run.packaged_files import DEFAULT_SETTINGS
from run.yaml_files import read_yaml
from stoker_wire.base import StrictModel
from stoker_wire.errors.problem import describe
from stoker_wire.messages import SEARCH_ATTRIBUTES
from stoker_wire.security.loopback import is_loopback

Port = Annotated[int, Field(ge=1, le=65535)]

PortOfInstance = Annotated[int, Field(ge=1024, le=65535)]
"""Only root may listen on lower ports."""

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_RETENTION = re.compile(r"^([0-9]{1,5})(h|d)$")


def bracketed(host: str) -> str:
    """The host for use before `:port`: an IPv6 address gets brackets."""
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
    """A ValidationError as one sentence; an error of the whole model names its fields itself."""
    return describe(fault).replace("body: ", "")


def _loopback(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError as fault:
        raise ValueError("should be an IP address, such as 127.0.0.1") from fault
    if not is_loopback(value):
        raise ValueError(
            "should be a loopback address: the Temporal dev server has neither TLS nor authorisation, "
            "so anyone who can reach its port controls it. For other hosts run a real Temporal cluster"
        )
    return value


class TemporalSettings(StrictModel):
    """Settings of the Temporal dev server, named like the flags of `temporal server start-dev`."""

    ip: Annotated[str, AfterValidator(_loopback)] = "127.0.0.1"
    port: Port = 7233
    ui_port: Port | None = 8233
    """None: no UI."""
    db_filename: str | None = "temporal.db"
    """File in the state folder. None: in memory, lost at the end."""
    namespace: str = Field("stoker", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{1,253}$")
    retention: str = Field("72h", pattern=_RETENTION.pattern)
    """How long closed workflows are kept: `72h`, `7d`."""
    sqlite_pragma: dict[str, str | int] = {"journal_mode": "wal", "synchronous": 1}
    search_attributes: dict[
        str, Literal["Bool", "Datetime", "Double", "Int", "Keyword", "KeywordList", "Text"]
    ] = Field(default_factory=lambda: dict(SEARCH_ATTRIBUTES))  # type: ignore[arg-type]
    dynamic_config: dict[str, Any] = {}
    """Dynamic server settings by key. The server silently ignores unknown keys."""
    log_level: Literal["debug", "info", "warn", "error", "never"] = "warn"

    @model_validator(mode="after")
    def _search_attributes_are_complete(self) -> Self:
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
        """The URL of the UI, if it is enabled."""
        return None if self.ui_port is None else f"http://{bracketed(self.ip)}:{self.ui_port}"

    @property
    def retention_hours(self) -> int:
        """The retention in hours."""
        match = _RETENTION.match(self.retention)
        assert match is not None
        return int(match[1]) * (24 if match[2] == "d" else 1)


class RequestLog(StrictModel):
    """The engine's request log, an input of `stokerd simulate`. Each engine of a machine needs its own path."""

    path: Path = Path("requests.jsonl")
    """File in the state folder."""
    file_megabytes_max: float = Field(64.0, gt=0, le=100_000)
    """Size at which a new file is started; a request takes about 120 bytes."""
    files_max: int = Field(8, ge=1, le=1000)
    """Number of files to keep; the oldest is deleted."""


class ListenLimits(StrictModel):
    """Limits on connections and bodies. A call over a limit gets a problem that names the limit."""

    connections_max: int = Field(40_000, ge=16)
    """Open connections. At the limit, a new one replaces an idle one. The limit of open files may be lower."""
    idle_seconds_max: float = Field(75.0, gt=0)
    """Time before the first request of a connection, and between two requests."""
    head_seconds_max: float = Field(10.0, gt=0)
    """Time for the head of a request to arrive."""
    body_seconds_max: float = Field(30.0, gt=0)
    """Time for the body of a request to arrive."""
    body_bytes_max: int = Field(1024 * 1024, ge=4096)
    """Body of a control call."""
    openai_body_bytes_max: int = Field(32 * 1024 * 1024, ge=4096)
    """Body of a call through `/openai/…`."""
    openai_held_bytes_max: int = Field(256 * 1024 * 1024, ge=4096)
    """Bodies of all calls through `/openai/…` that wait for a worker or for its first byte. One account's share may
    not exceed the bytes that are still free, so one account alone gets at most half."""


class EngineListen(StrictModel):
    """The engine's address, limits and request log."""

    host: Annotated[str, AfterValidator(_listening)] = "127.0.0.1"
    port: Port = 8080
    public_url: str | None = Field(None, pattern=r"^https?://[^/]+(/[^/]+)*$")
    """URL for workers and clients, without a trailing slash. None: http://<host>:<port>."""
    allowed_hosts: tuple[Annotated[str, AfterValidator(_host_name)], ...] = ()
    """Further host names of the engine. Requests with other `Host` names are refused (DNS rebinding). IP addresses and
    the host of `public_url` are always accepted."""
    limits: ListenLimits = ListenLimits()
    memo_trust_seconds: float | None = Field(15.0, ge=0)
    """How long after its start an engine routes to workers that have not reported to it. None: always, which several
    engines need, because each receives the reports of only some workers."""
    request_log: RequestLog | None = None
    """None: requests are not recorded."""

    @property
    def url(self) -> str:
        """The URL for workers and clients."""
        return self.public_url or self.own_url

    @property
    def own_url(self) -> str:
        """The URL on this machine, without a proxy in front of it."""
        return f"http://{bracketed(self.host)}:{self.port}"


class DashboardListen(StrictModel):
    """The web page's address."""

    host: Annotated[str, AfterValidator(_listening)] = "127.0.0.1"
    port: Port | None = None
    """None: no dashboard."""
    public_url: str | None = Field(None, pattern=r"^https?://[^/]+$")
    """URL for browsers, if a TLS proxy is in front."""
    allowed_hosts: tuple[Annotated[str, AfterValidator(_host_name)], ...] = ()
    """Further host names of the page."""
    engine_url: str | None = Field(None, pattern=r"^https?://[^/]+(/[^/]+)*$")
    """The engine as the dashboard reaches it. None: the engine of these settings on this machine."""
    prometheus_url: str | None = Field(None, pattern=r"^https?://[^/@?#]+(/[^/@?#]+)*$")
    """A Prometheus server that scrapes the engines, for charts of more than a day. None: a day at most."""
    prometheus_labels: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = {}
    """Labels that select this deployment's series, if the server has those of several."""

    @property
    def url(self) -> str | None:
        """The URL for browsers; None without a dashboard."""
        if self.port is None:
            return None
        return self.public_url or f"http://{bracketed(self.host)}:{self.port}"


class HostMarket(StrictModel):
    """The marketplace of this machine: machines, prices and templates."""

    port: Port = 8091
    machines: tuple[MachineSettings, ...] = ()
    gpus: GpuSettings = GpuSettings()
    """Terms of this machine's GPUs, which NVML finds."""
    templates: tuple[TemplateSettings, ...] = ()
    instance_port_min: PortOfInstance = 21000
    instance_port_max: PortOfInstance = 29999
    stop_grace_seconds: float = Field(5.0, ge=0, le=600)
    volumes_gb_max: float = Field(200.0, ge=0)
    """Disk for the volumes that instances leave for later ones; those unused for longest are dropped first."""


class MarketChoice(StrictModel):
    """The marketplace on which workers are rented."""

    kind: Literal["host", "vast"] = "host"
    url: str = "https://console.vast.ai"
    """URL of the Vast REST API; ignored for `host`, which uses `host_market.port`."""
    calls_per_second_max: float = Field(20.0, gt=0, le=1000)
    """Rate limit of the whole deployment, enforced by the market task queue. Listings do not count; and each worker
    process may start as many cold machines besides, so that a waiting request does not queue."""

    @model_validator(mode="after")
    def _url_is_an_address(self) -> Self:
        # Not a field constraint: its error message would contain the password.
        parsed = origin(self.url)
        secret = any(character in self.url for character in "@?#")
        if parsed is None or parsed.port > 65535 or secret:
            got = "got one with such a part" if secret else f"got {self.url!r:.80}"
            raise ValueError(
                f"url should be http[s]://host[:port], without user, password, query or fragment ({got})"
            )
        return self


class WorkerChoice(StrictModel):
    """Temporal worker versioning, which lets `stokerd rollout` move running endpoints between builds."""

    deployment: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,200}$")
    """Name of the worker deployment. None: no versioning, every worker runs every workflow."""
    build_id: str | None = Field(None, pattern=r"^[A-Za-z0-9_.+-]{1,200}$")
    """Build of this worker's code; `stokerd worker --build-id` and STOKER_BUILD_ID override it."""
    metrics_host: Annotated[str, AfterValidator(_listening)] = "127.0.0.1"
    metrics_port: Port | None = None
    """`/metrics` of the Temporal worker's process, without a key. None: it serves none. Each worker of a machine needs
    its own port."""

    def version(self) -> WorkerDeploymentVersion | None:
        """The worker's version; None without a deployment.

        Raises:
            CommandError: there is a deployment and no build.
        """
        if self.deployment is None:
            return None
        if self.build_id is None:
            raise CommandError(
                f"worker.deployment is {self.deployment}, but no build is given; give --build-id, "
                "STOKER_BUILD_ID, or worker.build_id"
            )
        return WorkerDeploymentVersion(self.deployment, self.build_id)


class SweepSettings(StrictModel):
    """The sweep destroys instances of endpoints whose workflow does not exist or makes no progress."""

    every_seconds: float = Field(300.0, gt=0, le=86_400)
    """Interval of sweeps. Doubled: such instances are billed for up to 300 s longer."""
    young_seconds: float = Field(600.0, ge=0, le=86_400)
    """Minimum age of an instance without an endpoint before it is destroyed."""
    stuck_seconds: float = Field(1800.0, gt=0, le=86_400)
    """After this time without a completed workflow task, an endpoint's instances are destroyed; its config is kept."""
    stuck_end_seconds: float = Field(86_400.0, gt=0, le=2_592_000)
    """After this time without progress, a workflow is terminated. Until then, a repaired build can continue it."""
    ensure_seconds: float = Field(60.0, gt=0, le=3600)
    """Interval at which every Temporal worker and engine checks that the sweep runs, and restarts it."""

    @property
    def spec(self) -> SweepSpec:
        """The input of the sweep's workflow."""
        return SweepSpec(
            every_seconds=self.every_seconds,
            young_seconds=self.young_seconds,
            stuck_seconds=self.stuck_seconds,
            stuck_end_seconds=self.stuck_end_seconds,
        )


class DeploymentSettings(StrictModel):
    """All settings in `temporal-dev.yaml`."""

    state_dir: Path = Path(".stoker")
    """Folder of keys, databases, logs and the host marketplace's disks. Relative to the settings file; with the packaged
    default settings, to the current folder."""
    temporal: TemporalSettings = TemporalSettings()
    engine: EngineListen = EngineListen()
    worker: WorkerChoice = WorkerChoice()
    sweep: SweepSettings = SweepSettings()
    dashboard: DashboardListen = DashboardListen()
    notify: NotifySettings = NotifySettings()
    market: MarketChoice = MarketChoice()
    host_market: HostMarket = HostMarket()

    def ports(self) -> dict[str, tuple[str, int]]:
        """Host and port of every server of this deployment, by the name of the setting."""
        temporal, dashboard = self.temporal, self.dashboard
        ports = {
            "temporal.port": (temporal.ip, temporal.port),
            "temporal.ui_port": (temporal.ip, temporal.ui_port),
            "engine.port": (self.engine.host, self.engine.port),
            "dashboard.port": (dashboard.host, dashboard.port),
            "worker.metrics_port": (self.worker.metrics_host, self.worker.metrics_port),
            "host_market.port": ("127.0.0.1", self.host_market.port if self.market.kind == "host" else None),
        }
        return {name: (host, port) for name, (host, port) in ports.items() if port is not None}

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        taken: dict[int, str] = {}
        for name, (_, port) in self.ports().items():
            if (other := taken.setdefault(port, name)) != name:
                raise ValueError(f"{other} and {name} are both {port}; give each its own port")
        return self

    @model_validator(mode="after")
    def _host_market_is_valid(self) -> Self:
        try:
            self.host_market_settings(market_key="checked-before-it-runs", env={})
        except ValidationError as fault:
            raise ValueError(f"host_market: {describe_model_error(fault)}") from None
        return self

    def with_build(self, build_id: str | None) -> Self:
        """The settings with this build id, if it is not None.

        Raises:
            CommandError: the build id is invalid.
        """
        if build_id is None:
            return self
        try:
            worker = WorkerChoice.model_validate({**self.worker.model_dump(), "build_id": build_id})
        except ValidationError as fault:
            raise CommandError(f"--build-id: {describe(fault)}") from fault
        return self.model_copy(update={"worker": worker})

    def host_market_settings(self, *, market_key: str, env: dict[str, str]) -> HostMarketSettings:
        """The settings of the host marketplace; `env` is added to every instance's environment."""
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
            volumes_gb_max=host.volumes_gb_max,
        )

    @property
    def request_log_settings(self) -> RequestLogSettings | None:
        """The settings of the engine's request log; None if it is disabled."""
        configured = self.engine.request_log
        if configured is None:
            return None
        return RequestLogSettings(
            path=self.state_dir / configured.path,
            file_bytes_max=max(int(configured.file_megabytes_max * 1_000_000), 1024),
            files_max=configured.files_max,
        )

    @property
    def uses_vast(self) -> bool:
        """Whether workers are rented on Vast.ai."""
        return self.market.kind == "vast"

    @property
    def market_url(self) -> str:
        """The marketplace's base URL."""
        if self.market.kind == "host":
            return f"http://127.0.0.1:{self.host_market.port}"
        return self.market.url

    @property
    def saved_logs_dir(self) -> Path:
        """The folder with the last log lines of instances that were rebooted or destroyed."""
        return self.state_dir / "instance-logs"

    def market_client(
        self, key: str, *, on_call: Callable[[str, str, float], None] = lambda _, __, ___: None
    ) -> VastMarket:
        """A client of the marketplace with this API key; `on_call` as `VastMarket` takes it.

        Raises:
            CommandError: the environment names a proxy that cannot be used.
        """
        try:
            return VastMarket(self.market_url, key, on_call=on_call)
        except ValueError as fault:
            raise CommandError(str(fault)) from fault


def load_settings(path: Path | None) -> DeploymentSettings:
    """The settings in the file. None: `temporal-dev.yaml` in the current folder, else the packaged default settings.

    Raises:
        CommandError: the file is missing, not YAML, or has an invalid value. The message names the file and the field.
    """
    base = Path.cwd() if path is None else path.parent
    if path is None:
        here = Path(DEFAULT_SETTINGS.name)
        path = here if here.exists() else DEFAULT_SETTINGS
    data = read_yaml(path, "the settings of a deployment (give the file with --config)")
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise CommandError(f"{path} should hold a mapping of settings, got {type(data).__name__}")
    try:
        settings = DeploymentSettings.model_validate(data)
    except ValidationError as fault:
        raise CommandError(f"{path}: {describe(fault)}") from fault
    try:
        state_dir = (base / settings.state_dir).resolve()
    except (OSError, ValueError) as fault:
        raise CommandError(
            f"{path}: state_dir: {str(settings.state_dir)!r} cannot be a folder: {fault}"
        ) from fault
    return settings.model_copy(
        update={"state_dir": state_dir, "notify": settings.notify.relative_to(base.absolute())}
    )
