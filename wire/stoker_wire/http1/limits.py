"""Limits on what one peer may use of the server: bytes, header fields, connections and time."""

import contextlib
import resource
from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
RESERVED_FILES = 64
"""File descriptors kept for reports, logs and the model's files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits on unauthenticated peers. The server answers a peer over a limit with a problem and closes."""

    head_bytes_max: int = 32 * KIB
    """Request line and header fields together. A route answer in a header takes about 1 KiB."""
    head_fields_max: int = 100
    body_bytes_max: int = 64 * MIB
    bodies_bytes_max: int = 1024 * MIB
    """All requests in memory together. The ticket is inside the body, so a body is buffered before it is verified."""
    head_seconds_max: float = 10.0
    """From the first byte of a request to the end of its header fields."""
    body_seconds_max: float = 30.0
    """To receive a body, plus one second for every `body_bytes_per_second_min` received."""
    body_bytes_per_second_min: int = 16 * KIB
    idle_seconds_max: float = 75.0
    """Between two requests of a connection."""
    stall_seconds_max: float = 60.0
    """Without progress while the client does not read its response."""
    linger_seconds: float = 2.0
    """A refused peer may send this long before it is cut. An immediate close could destroy the response in transit."""
    connections_max: int = 4096
    """At this limit a new connection replaces the one idle longest. The limit of open files may be lower."""
    handshakes_max: int = 512
    """TLS handshakes in progress, in addition to connections; each has `head_seconds_max`. A new one replaces the oldest."""


def connections_possible() -> int:
    """Client connections that the open-file limit allows, with as many again to the model server."""
    return max(16, (_files_possible() - handshakes_possible()) // 2)


def handshakes_possible() -> int:
    """TLS handshakes that the open-file limit allows in addition to connections."""
    return max(16, _files_possible() // 8)


def _files_possible() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED_FILES


def raise_files_max(wanted: int = 65_536) -> None:
    """Raise the soft limit of open files as far as the system allows. Idle clients exhaust the usual 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
