"""Blocks of ten free ports, one per instance."""

import contextlib
import errno
import socket

from hosts.settings import PORTS_PER_INSTANCE


class NoPorts(RuntimeError):
    """Every block of the range is in use."""


class Ports:
    """Allocates free blocks, and keeps the last port of each bound, so that no other marketplace takes the block."""

    def __init__(self, port_min: int, port_max: int, *, start: int, host: str | None = None) -> None:
        """`host` is the address that instances listen on; None: all interfaces."""
        self._host = host
        count = (port_max - port_min + 1) // PORTS_PER_INSTANCE
        self._bases = [port_min + PORTS_PER_INSTANCE * index for index in range(count)]
        # Marketplaces on one machine start at different blocks, so that they rarely compete for one.
        first = start % count
        self._bases = self._bases[first:] + self._bases[:first]
        self._reserved: dict[int, socket.socket] = {}

    def take(self, preferred: int = 0) -> int:
        """The first port of a free block: of `preferred` if it is free, else of another. Raises NoPorts."""
        for base in [preferred, *self._bases] if preferred else self._bases:
            if base not in self._reserved and self._reserve(base):
                return base
        raise NoPorts(f"no block of {PORTS_PER_INSTANCE} free ports is left: widen port_min..port_max")

    def hold(self, base: int) -> None:
        """Reserve the block of an instance that is already running."""
        if base and base not in self._reserved:
            reservation = self._bound(base + PORTS_PER_INSTANCE - 1)
            if reservation is not None:
                self._reserved[base] = reservation

    def free(self, base: int) -> None:
        """Release a block."""
        reservation = self._reserved.pop(base, None)
        if reservation is not None:
            reservation.close()

    def close(self) -> None:
        """Release all blocks."""
        for base in list(self._reserved):
            self.free(base)

    def _reserve(self, base: int) -> bool:
        with contextlib.ExitStack() as held:
            for port in range(base, base + PORTS_PER_INSTANCE - 1):
                probe = self._bound(port)
                if probe is None:
                    return False
                held.callback(probe.close)
            reservation = self._bound(base + PORTS_PER_INSTANCE - 1)
            if reservation is None:
                return False
            self._reserved[base] = reservation
            return True

    def _bound(self, port: int) -> socket.socket | None:
        return _bound(self._host or "0.0.0.0", port)


def _bound(host: str, port: int) -> socket.socket | None:
    """A socket bound to the port; None if a process listens there, on this host or on all interfaces."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Ignore closing connections (TIME_WAIT); a listening socket still makes the bind fail.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((host, port))
        one.listen(1)
    except OSError as error:
        one.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return None
        raise
    return one
