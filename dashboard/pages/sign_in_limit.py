"""Limits wrong keys by client address: one address cannot guess, and cannot keep others from signing in. Pure."""

import ipaddress
from collections import OrderedDict, deque

WINDOW_SECONDS = 60.0
WRONG_MAX = 20
"""Wrong keys of one address in the window. Doubled: people behind one address share twice as many attempts."""
ALL_WRONG_MAX = 200
"""Wrong keys of all addresses in the window, from which each address has only `PRESSED_MAX`."""
PRESSED_MAX = 2
"""Wrong keys of one address while many addresses try keys. The first attempt of an address is always read."""
ADDRESSES_MAX = 10_000
_IPV6_PREFIX = 64
"""One client has at least this many addresses of IPv6."""


class SignInLimit:
    """The wrong keys of the last minute."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()
        """Times by address, the address of the last wrong key at the end."""
        self._all: deque[float] = deque(maxlen=ALL_WRONG_MAX)

    def __repr__(self) -> str:
        return f"<SignInLimit {len(self._wrong)} addresses>"

    def wait_seconds(self, address: str, now: float) -> float:
        """Seconds until this address may try a key; 0: now."""
        wrong = self._wrong.get(address, ())
        begins = now - WINDOW_SECONDS
        pressed = len(self._all) == ALL_WRONG_MAX and self._all[0] > begins
        allowed = PRESSED_MAX if pressed else WRONG_MAX
        recent = [at for at in wrong if at > begins]
        return recent[-allowed] - begins if len(recent) >= allowed else 0.0

    def note_wrong(self, address: str, now: float) -> None:
        """Count a wrong key."""
        self._all.append(now)
        self._wrong.setdefault(address, deque(maxlen=WRONG_MAX)).append(now)
        self._wrong.move_to_end(address)
        while len(self._wrong) > ADDRESSES_MAX:
            self._wrong.popitem(last=False)


def client_address(peer: str | None, forwarded_for: str, *, behind_proxy: bool) -> str:
    """The address that a client's attempts are counted by; of IPv6 its /64 network.

    Args:
        peer: the other end of the connection.
        forwarded_for: the `X-Forwarded-For` field. Its last address is the one that the proxy saw; the others are the
            client's own claim.
        behind_proxy: whether a proxy is in front. The field counts only on connections of this machine or its network.
    """
    seen = _address(peer or "")
    if behind_proxy and seen is not None and seen.is_private:
        seen = _address(forwarded_for.rpartition(",")[2].strip()) or seen
    if seen is None:
        return peer or ""
    if seen.version == 6:
        return str(ipaddress.ip_network((seen, _IPV6_PREFIX), strict=False))
    return str(seen)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if found.version == 6 else found
