"""What one peer may ask of the server: bytes, fields, connections and time."""

import contextlib
import resource
from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
FILES_SPARED = 64
"""Of the files that the process may open: for reports, logs and the model's files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what an unknown peer may hold. A peer that passes one gets a problem and is closed."""

    head_bytes_max: int = 32 * KIB
    """Request line and header fields together. A route answer in a header is about 1 KiB."""
    head_fields_max: int = 100
    body_bytes_max: int = 64 * MIB
    bodies_bytes_max: int = 1024 * MIB
    """All bodies together, and the heads: a ticket is inside the body, so what strangers send is held until it is read."""
    head_seconds_max: float = 10.0
    """From the first byte of a request to the end of its header fields."""
    body_seconds_max: float = 30.0
    """To receive a body, plus one second for every `body_bytes_per_second_min` that have come."""
    body_bytes_per_second_min: int = 16 * KIB
    idle_seconds_max: float = 75.0
    """Between two requests of a connection."""
    stall_seconds_max: float = 60.0
    """For a client that does not read what is sent to it."""
    linger_seconds: float = 2.0
    """How long a refused peer may go on sending before it is cut: closing at once would destroy the answer on its way."""
    connections_max: int = 4096
    """One that only idles makes room for a new one. The process's limit of open files may be lower, and then counts."""
    handshakes_max: int = 512
    """TLS handshakes under way, on top; the one that began first makes room for a new one. Each has `head_seconds_max`."""


def connections_possible() -> int:
    """How many connections of clients the process's open files allow, as many again to the model server included."""
    return max(16, (_files_possible() - handshakes_possible()) // 2)


def handshakes_possible() -> int:
    """How many TLS handshakes the process's open files allow beside its connections."""
    return max(16, _files_possible() // 8)


def _files_possible() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - FILES_SPARED


def raise_files_max(wanted: int = 65_536) -> None:
    """As many open files as the system lets this process have: idle strangers would use up the usual 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
