"""Blocks of ten free ports, one per instance."""

import contextlib
import errno
import socket

from hosts.settings import PORTS_PER_INSTANCE


class NoPorts(RuntimeError):
    """Every block of the range is in use."""


class Ports:
    """Hands out blocks that are free now, and seals each by holding its last port, so that no other marketplace takes it."""

    def __init__(self, port_min: int, port_max: int, *, start: int, host: str | None = None) -> None:
        """`host` is where the instances listen; None: on all interfaces."""
        self._host = host
        count = (port_max - port_min + 1) // PORTS_PER_INSTANCE
        self._bases = [port_min + PORTS_PER_INSTANCE * index for index in range(count)]
        # Marketplaces of one machine begin at different places, so that they seldom try the same block.
        cut = start % count
        self._bases = self._bases[cut:] + self._bases[:cut]
        self._seals: dict[int, socket.socket] = {}

    def take(self, wish: int = 0) -> int:
        """A block's first port: `wish` if that block is free, else another. Raises NoPorts."""
        for base in [wish, *self._bases] if wish else self._bases:
            if base not in self._seals and self._seal(base):
                return base
        raise NoPorts(f"no block of {PORTS_PER_INSTANCE} free ports is left: widen port_min..port_max")

    def hold(self, base: int) -> None:
        """Seal the block of an instance that is running already."""
        if base and base not in self._seals:
            seal = self._bound(base + PORTS_PER_INSTANCE - 1)
            if seal is not None:
                self._seals[base] = seal

    def free(self, base: int) -> None:
        """Give a block back."""
        seal = self._seals.pop(base, None)
        if seal is not None:
            seal.close()

    def close(self) -> None:
        """Give all blocks back."""
        for base in list(self._seals):
            self.free(base)

    def _seal(self, base: int) -> bool:
        with contextlib.ExitStack() as held:
            for port in range(base, base + PORTS_PER_INSTANCE - 1):
                probe = self._bound(port)
                if probe is None:
                    return False
                held.callback(probe.close)
            seal = self._bound(base + PORTS_PER_INSTANCE - 1)
            if seal is None:
                return False
            self._seals[base] = seal
            return True

    def _bound(self, port: int) -> socket.socket | None:
        return _bound(self._host or "0.0.0.0", port)


def _bound(host: str, port: int) -> socket.socket | None:
    """A socket on the port, or None if a process listens there; a listener on all interfaces is found from any host."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A connection that is winding down must not make a port look taken; a listener still does.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((host, port))
        one.listen(1)
    except OSError as error:
        one.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return None
        raise
    return one
