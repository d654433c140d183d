"""Settings of the dashboard's process."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardSettings:
    """Where it listens, which engine it reads, and who may sign in. The repr omits the keys."""

    accounts: dict[str, str] = field(repr=False)
    """Keys by account name. These accounts may sign in, and their endpoints are sampled."""
    engine_url: str
    """The engine as this process reaches it."""
    host: str = "127.0.0.1"
    port: int = 8090
    public_url: str = ""
    """URL for browsers, if a TLS proxy is in front; with https the session cookie is marked `Secure`."""
    allowed_hosts: tuple[str, ...] = ()
    """Further host names of this server."""
    temporal_ui_url: str = ""
    """The Temporal UI's list of workflows; empty: no link."""
    history_file: Path | None = None
    """SQLite file of the last day; None: in memory, lost at the end."""
    prometheus_url: str = ""
    """A Prometheus server that scrapes the engines, for ranges longer than a day; empty: none."""
    prometheus_authorization: str = field(default="", repr=False)
    """The value of the `Authorization` header to it; empty: none."""
    prometheus_labels: dict[str, str] = field(default_factory=dict)
    """Labels that select this deployment's series, besides `endpoint`."""
    sample_seconds: float = 2.0
    """Interval of samples. Doubled: half the load on the engine, and charts that move half as often."""
