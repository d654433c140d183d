"""Settings of an engine. `run` reads them from files and the environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from activities.notices.deliver import Channel
from activities.notices.reporting import NoticePlan
from activities.sweep_watchdog import ENSURE_SECONDS, SweepSpec
from webserver.connections import ConnectionLimits

CONTROL_BODY_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits that protect an engine from overload."""

    queue_places_max: int = 10_000
    """Queued requests per endpoint; a further request is turned away and keeps no position."""
    held_calls_max: int = 20_000
    """Held `/route/` calls of all endpoints; a further call is answered at once."""
    requests_known_max: int = 100_000
    """Assigned requests per endpoint that are remembered to recognise a re-route."""
    connections: ConnectionLimits = ConnectionLimits()
    workers_unlisted_max: int = 1_000
    """Workers per endpoint that may report before the memo lists them."""
    body_bytes_max: int = CONTROL_BODY_BYTES_MAX
    """Largest body of a control call; a larger one gets 413."""
    openai_body_bytes_max: int = 32 * 1024 * 1024
    """Largest body of a call of `/openai/…`; a larger one gets 413."""
    openai_held_bytes_max: int = 256 * 1024 * 1024
    """Summed bodies of such calls that wait for a worker or for its first byte; a further one gets 503.

    The share of an account with several such calls may not exceed the bytes that are still free; a further call gets
    429.
    """
    body_seconds_max: float = 30.0
    """Longest time for a body to arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Timeouts and intervals, in seconds."""

    hold_seconds: float = 8.0
    """How long a `/route/` call is held. The official client times out after 10 s."""
    report_fresh_seconds: float = 30.0
    """A worker without a report for this time gets no requests. Idle workers report every 10 s."""
    memo_trust_seconds: float = 15.0
    """For this time after its start an engine routes to ready workers of the memo that have not reported yet.

    Each of several engines behind a load balancer receives only some reports: with `inf` they always trust the memo.
    """
    watch_seconds: float = 1.0
    watch_full_seconds: float = 60.0
    watch_overlap_seconds: float = 5.0
    """Overlap of two polls for changes, because visibility is eventually consistent."""
    watch_stale_seconds: float = 30.0
    """The engine is not ready after this time without an answer from Temporal; routing continues."""
    temporal_call_seconds: float = 5.0
    """How long a console call waits for a workflow's answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLogSettings:
    """File and size limits of the request log."""

    path: Path
    """The current file. Older files are `<path>.1`, `<path>.2`, …; the highest number is the oldest."""
    file_bytes_max: int = 64 * 1024 * 1024
    """A line has about 120 bytes, so the default holds half a million requests."""
    files_max: int = 8
    """Including the current file; the oldest one is deleted."""

    def __post_init__(self) -> None:
        if self.file_bytes_max < 1024 or self.files_max < 1:
            raise ValueError(
                "the request log needs file_bytes_max of at least 1024 bytes and files_max of at least 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPackage:
    """The worker for machines that install it from the engine."""

    version: str
    files: Mapping[str, bytes] = field(repr=False)
    """Wheels, and `requirements.txt` with the pinned packages that they need."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EngineSettings:
    """Everything that an engine needs besides its Temporal client."""

    accounts: Mapping[str, str] = field(default_factory=dict)
    """Account name to account key."""
    secret: bytes
    """Worker tokens and endpoint keys are derived from it. All engines and Temporal workers use the same secret."""
    secrets_previous: tuple[bytes, ...] = ()
    """Tokens and keys of these secrets are accepted too, during a rotation."""
    accounts_previous: Mapping[str, str] = field(default_factory=dict)
    """A second key per account that is accepted too, during a rotation."""
    rsa_private_key_pem: bytes
    """Signs route answers for official workers. All engines use the same key."""
    ca_key_pem: bytes = b""
    """Elliptic curve key of the workers' certificate authority. All engines use the same key. Empty: none."""
    host: str = "127.0.0.1"
    port: int = 8080
    """0: any free port."""
    public_url: str = ""
    """URL at which clients and workers reach this engine, without a trailing slash."""
    allowed_hosts: tuple[str, ...] = ()
    """Additional host names that are accepted in the `Host` field, besides IP addresses and that of `public_url`."""
    saved_logs_dir: Path | None = None
    """The folder in which Temporal workers save logs of released instances; None: only live logs are shown."""
    dashboard_url: str = ""
    """URL of the dashboard for browsers, which `stoker open` opens; empty: none."""
    worker_package: WorkerPackage | None = None
    """None: machines cannot install the worker from this engine."""
    market_url: str = ""
    """URL of the marketplace, for the console's read-only view; empty: no view."""
    market_key: str = ""
    market_webhook_secret: bytes = b""
    """Signs the marketplace's webhooks; empty: none are taken."""
    request_log: RequestLogSettings | None = None
    """None: no request log."""
    sweep: SweepSpec | None = None
    """The engine keeps the sweep running with these settings; None: only the Temporal workers do."""
    sweep_ensure_seconds: float = ENSURE_SECONDS
    notices: NoticePlan | None = None
    """The receivers of notices of alerts; None: alerts are not reported."""
    channels: Mapping[str, Channel] = field(default_factory=dict, repr=False)
    """The channels in `notices` by name. The engine itself uses them while Temporal does not answer."""
    limits: Limits = Limits()
    timing: Timing = Timing()

    def __post_init__(self) -> None:
        if any(len(secret) < 16 for secret in self.secrets):
            raise ValueError("the engine's secret must be at least 16 bytes of random data")
        for name, key in (*self.accounts.items(), *self.accounts_previous.items()):
            if len(key) < 16:
                raise ValueError(f"the key of account {name!r} is shorter than 16 characters")
        if self.public_url.endswith("/"):
            raise ValueError("public_url must not end with a slash: clients append their paths to it")

    def __repr__(self) -> str:
        names = ", ".join(sorted(self.accounts)) or "none"
        return f"<EngineSettings {self.host}:{self.port} accounts {names}, secrets hidden>"

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """All accepted secrets, the current one first."""
        return (self.secret, *self.secrets_previous)

    def but(self, **changes: Any) -> "EngineSettings":
        """A copy of the settings with these fields changed."""
        return replace(self, **changes)
