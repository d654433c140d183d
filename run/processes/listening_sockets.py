"""Reads the listening TCP sockets of processes from /proc."""

import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stoker_wire.security.loopback import is_loopback

_LISTEN = "0A"
"""The state of a listening socket in /proc/net/tcp."""


@dataclass(frozen=True, slots=True, order=True)
class ListeningSocket:
    """One listening TCP socket of one process."""

    pid: int
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only processes on this machine can connect."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listening_sockets(pids: Iterable[int]) -> list[ListeningSocket] | None:
    """The listening TCP sockets of these processes; None if the system has no /proc.

    Sockets of other users' processes are not visible.
    """
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    if not tables[0].exists():
        return None
    by_inode: dict[str, tuple[str, int]] = {}
    for table in tables:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN:
                by_inode[fields[9]] = _address(fields[1])
    return sorted(
        {
            ListeningSocket(pid, *by_inode[inode])
            for pid in pids
            for inode in _sockets(pid)
            if inode in by_inode
        }
    )


def _sockets(pid: int) -> Iterable[str]:
    try:
        entries = list(os.scandir(f"/proc/{pid}/fd"))
    except OSError:
        return
    for entry in entries:
        try:
            target = str(Path(entry.path).readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[len("socket:[") : -1]


def _address(text: str) -> tuple[str, int]:
    """`0100007F:1F90` is 127.0.0.1 port 8080: each group of four bytes is in this machine's byte order."""
    host, _, port = text.partition(":")
    words = struct.unpack(f">{len(host) // 8}I", bytes.fromhex(host))
    raw = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw), int(port, 16)
