"""What an engine is told at its start; read from files and environment in `run`, never here."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from activities.safety_nets import ENSURE_SECONDS, SweepSpec
from webserver.connections import ConnectionLimits

CONTROL_BODY_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that keep one engine alive, whatever it is sent."""

    queue_places_max: int = 10_000
    """Requests that wait per endpoint; a request beyond it is told to come again and keeps no place."""
    held_calls_max: int = 20_000
    """`/route/` calls held open over all endpoints; one beyond it is answered at once."""
    requests_known_max: int = 100_000
    """Requests per endpoint, given a worker before, that a re-route is recognised for."""
    connections: ConnectionLimits = ConnectionLimits()
    workers_unlisted_max: int = 1_000
    """Workers per endpoint that report before the memo lists them."""
    body_bytes_max: int = CONTROL_BODY_BYTES_MAX
    """Body of a control call; larger is a 413."""
    openai_body_bytes_max: int = 32 * 1024 * 1024
    """Body of a call through `/openai/…`; larger is a 413."""
    openai_held_bytes_max: int = 256 * 1024 * 1024
    """Bodies of all such calls that wait for a worker or for its first byte, in sum; one beyond it is a 503.

    An account that has several such calls may hold as much as it leaves free; one beyond that is a 429.
    """
    body_seconds_max: float = 30.0
    """How long a body may take to arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds that the engine waits, holds and trusts."""

    hold_seconds: float = 8.0
    """How long a `/route/` call is held: the official client gives up at 10 s."""
    report_fresh_seconds: float = 30.0
    """A worker silent for longer gets nothing: an idle one speaks every 10 s, and a failed report takes 6 s."""
    memo_trust_seconds: float = 15.0
    """After its start an engine routes to what the memo calls ready, until it has heard the workers itself.

    Several engines behind one balancer hear each only some of the reports: `inf` lets them trust the memo always.
    """
    watch_seconds: float = 1.0
    watch_full_seconds: float = 60.0
    watch_overlap_seconds: float = 5.0
    """Visibility is eventually consistent: how far back each look goes again."""
    watch_stale_seconds: float = 30.0
    """Not ready when Temporal has not answered for so long; routing goes on with what is known."""
    temporal_call_seconds: float = 5.0
    """How long a console call waits for Temporal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLogSettings:
    """Where the record is kept and how large it may grow."""

    path: Path
    """The file that is written; older ones are beside it as `<path>.1`, `<path>.2`, …, the highest is the oldest."""
    file_bytes_max: int = 64 * 1024 * 1024
    """A line takes about 120 bytes: half a million requests."""
    files_max: int = 8
    """With the one that is written; the oldest is removed."""

    def __post_init__(self) -> None:
        if self.file_bytes_max < 1024 or self.files_max < 1:
            raise ValueError("a request log needs a file of at least 1024 bytes")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EngineSettings:
    """Everything an engine needs besides its connection to Temporal."""

    accounts: Mapping[str, str] = field(default_factory=dict)
    """Account name to account key."""
    secret: bytes
    """Worker tokens and endpoint keys are derived from it; the same for every engine and for the activities."""
    secrets_previous: tuple[bytes, ...] = ()
    """What was derived from these is still accepted: while a secret is rotated."""
    accounts_previous: Mapping[str, str] = field(default_factory=dict)
    """A second key per account, accepted beside its own: while a key is rotated."""
    rsa_private_key_pem: bytes
    """Signs route answers for official workers; the same for every engine."""
    ca_key_pem: bytes = b""
    """Elliptic curve key of the authority that certifies workers' addresses; the same for every engine. Empty: none."""
    host: str = "127.0.0.1"
    port: int = 8080
    """0: any free port."""
    public_url: str = ""
    """Where clients and workers reach this engine, without a trailing slash; for answers and logs."""
    allowed_hosts: tuple[str, ...] = ()
    """Further host names that clients may use in the `Host` field; IP addresses and `public_url` always may."""
    worker_ssl_context: ssl.SSLContext | None = None
    """How the OpenAI proxy checks workers that speak https; None: the system's authorities."""
    market_url: str = ""
    """The marketplace's address, for the console's window on it; empty: no window."""
    market_key: str = ""
    metrics_public: bool = False
    """Whether `/metrics` is answered without an account key."""
    request_log: RequestLogSettings | None = None
    """Where requests are recorded; None: nowhere."""
    sweep: SweepSpec | None = None
    """The engine keeps the sweep with these settings running, beside the Temporal workers; None: it does not."""
    sweep_ensure_seconds: float = ENSURE_SECONDS
    limits: Limits = Limits()
    timing: Timing = Timing()

    def __post_init__(self) -> None:
        if any(len(secret) < 16 for secret in self.secrets):
            raise ValueError("the engine's secret must be at least 16 bytes of chance")
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
        """Every secret that is accepted, the current one first."""
        return (self.secret, *self.secrets_previous)

    def but(self, **changes: Any) -> "EngineSettings":
        """The same settings with these fields changed."""
        return replace(self, **changes)
