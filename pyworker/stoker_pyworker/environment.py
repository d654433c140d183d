"""The settings that marketplace and engine pass to a worker in environment variables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stoker_pyworker.config import ConfigError
from stoker_wire.parsing.ids import read_id
from stoker_wire.parsing.numbers import read_number
from stoker_wire.security.redaction import secret_values

_TRUE = frozenset({"1", "true", "yes", "on", "y", "t"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """All environment variables of the package, read once at start."""

    container_id: int = 0
    """The marketplace instance id."""
    worker_host: str | None = None
    """The address to listen on (`WORKER_HOST`); None: all interfaces."""
    worker_port: int = 3000
    public_host: str = "127.0.0.1"
    public_port: int = 0
    """The port for clients; 0: the port that the worker listens on."""
    report_addresses: tuple[str, ...] = ()
    master_token: str = field(default="", repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values of variables whose names denote secrets. Reports and error logs do not contain them."""
    launch_id: str = ""
    unsecured: bool = False
    use_ssl: bool = False
    tls_certificate: Path = Path("/etc/instance.crt")
    tls_key: Path = Path("/etc/instance.key")
    session_port: int = 0
    """Port of plain HTTP `/session/end` for the model server on this machine; 0: disabled."""
    health_path: str = ""
    drain_seconds_max: float = 600.0
    log_requests: bool = False
    model_settings: tuple[str, ...] = ()
    """Variables that identify the model, as `NAME=value`, for the benchmark's fingerprint."""

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> "Environment":
        """Parse the environment.

        Raises:
            ConfigError: with every missing or invalid variable. It does not contain secret values.
        """
        faults: list[str] = []
        unsecured = variables.get("UNSECURED", "").strip().lower() in _TRUE
        port = _port(variables, "WORKER_PORT", 3000 if unsecured else None, faults)
        token = variables.get("MASTER_TOKEN", "")
        parts = token.split(".")
        if not unsecured and (len(parts) != 3 or not all(parts)):
            faults.append(
                "MASTER_TOKEN: expected a token like <endpoint id>.<launch id>.<mac>; the engine sets it"
                " when it creates the instance (UNSECURED=true runs without a token, for development)"
            )
        reports = tuple(
            part.strip().rstrip("/") for part in variables.get("REPORT_ADDR", "").split(",") if part.strip()
        )
        faults += [
            f"REPORT_ADDR: expected http://… or https://…, received {address!r}"
            for address in reports
            if not address.startswith(("http://", "https://"))
        ]
        if not reports and not unsecured:
            faults.append("REPORT_ADDR: expected the engine's address, received nothing")
        container = variables.get("CONTAINER_ID", "0" if unsecured else "")
        container_id = read_id(container)
        if container_id is None:
            faults.append(f"CONTAINER_ID: expected the instance's number, received {container!r}")
        use_ssl = variables.get("USE_SSL", "") == "true"
        drain = variables.get("STOKER_DRAIN_SECONDS", "600")
        drain_seconds = read_number(drain)
        if drain_seconds is None or drain_seconds < 0:
            faults.append(f"STOKER_DRAIN_SECONDS: expected seconds, received {drain!r}")
        session_port = 0
        if use_ssl or "WORKER_HTTP_PORT" in variables:
            session_port = _port(variables, "WORKER_HTTP_PORT", port + 1, faults)
        public_port = _port(variables, f"VAST_TCP_PORT_{port}", port, faults)
        if faults:
            raise ConfigError("; ".join(faults))
        return cls(
            container_id=container_id or 0,
            worker_host=variables.get("WORKER_HOST", "").strip() or None,
            worker_port=port,
            public_host=variables.get("PUBLIC_IPADDR", "127.0.0.1").strip(),
            public_port=public_port,
            report_addresses=reports,
            master_token=token,
            secrets=secret_values(variables),
            launch_id=parts[1] if len(parts) == 3 else "",
            unsecured=unsecured,
            use_ssl=use_ssl,
            tls_certificate=Path(variables.get("STOKER_TLS_CERTIFICATE", "/etc/instance.crt")),
            tls_key=Path(variables.get("STOKER_TLS_KEY", "/etc/instance.key")),
            session_port=session_port,
            health_path=variables.get("MODEL_HEALTH_ENDPOINT", ""),
            drain_seconds_max=drain_seconds or 0.0,
            log_requests=variables.get("STOKER_LOG_REQUESTS", "").lower() in _TRUE,
            model_settings=tuple(
                f"{name}={variables[name]}" for name in _MODEL_VARIABLES if variables.get(name)
            ),
        )

    def url(self, listening_port: int) -> str:
        """The worker's address for clients, as reported to the engine."""
        scheme = "https" if self.use_ssl else "http"
        host = self.public_host
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return f"{scheme}://{host}:{self.public_port or listening_port}"


_MODEL_VARIABLES = ("MODEL_NAME", "MODEL_ID", "MODEL_REVISION", "MODEL_ARGS", "VLLM_MODEL", "VLLM_ARGS")


def _port(variables: Mapping[str, str], name: str, default: int | None, faults: list[str]) -> int:
    text = variables.get(name, "" if default is None else str(default))
    port = read_id(text)
    if port is not None and port < 65536:
        return port
    faults.append(f"{name}: expected a port number, received {text!r}")
    return 0
