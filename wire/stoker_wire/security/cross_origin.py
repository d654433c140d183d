"""Detects requests sent by web pages of other origins.

In DNS rebinding, an attacker points the host name of a page at this server, so the browser treats the server as the
page's origin; the `Host` field still names the page's host. In cross-site request forgery, a page of another origin
sends a request that needs no preflight; a page cannot change its `Origin` and `Sec-Fetch-Site` fields.
"""

import functools
import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from stoker_wire.errors.problem import Problem

_READS = frozenset({"GET", "HEAD"})
_OWN_PAGES = frozenset({"same-origin", "none"})
"""`none`: the user entered the address or opened a bookmark."""
_CLOSING = {"Connection": "close"}


def parse_host(authority: str) -> str | None:
    """The host in `host[:port]`, in lower case and without brackets; None if it is malformed."""
    try:
        parts = urlsplit(f"//{authority}")
        port = parts.port  # raises ValueError for an invalid port
    except ValueError:
        return None
    malformed = parts.netloc != authority or "@" in authority or (port is None and authority.endswith(":"))
    return None if malformed or not parts.hostname else parts.hostname


def host_names(*addresses: str) -> frozenset[str]:
    """The host names in these URLs, hosts or `host:port` pairs; empty ones are skipped."""
    hosts = (parse_host(urlsplit(one).netloc if "://" in one else one) for one in addresses if one)
    return frozenset(host for host in hosts if host)


def is_own_host(authority: str, names: Collection[str]) -> bool:
    """Whether a `Host` field may name this server.

    IP addresses are accepted, because rebinding needs a name. Names without a dot are accepted, because they are not in
    the public DNS. Other names must be among `names` (lower case).
    """
    known = _is_local(authority)
    return known if isinstance(known, bool) else known in names


@functools.lru_cache(maxsize=256)  # every request has a Host field, and few of them differ
def _is_local(authority: str) -> bool | str:
    """Whether the `Host` field names this server for certain, or certainly not; else its host name."""
    host = parse_host(authority)
    if host is None:
        return False
    host = host.removesuffix(".")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True if "." not in host or host.endswith(".localhost") else host
    return True


def cross_origin_problem(
    method: str, host: str, origin: str | None, fetch_site: str | None, *, names: Collection[str] = ()
) -> Problem | None:
    """The problem with a request, by the fields that a page cannot forge; None if it is acceptable.

    Args:
        method: in upper case.
        host: the `Host` field; empty if it is missing.
        origin: the `Origin` field, if present.
        fetch_site: the `Sec-Fetch-Site` field, if present.
        names: the server's public host names, in lower case.
    """
    if host and not is_own_host(host, names):
        reason = (
            "the Host field names another server; use this server's IP address, or add the name to its settings "
            "(engine.public_url, engine.allowed_hosts)"
        )
        return Problem(421, "host_not_allowed", reason, headers=_CLOSING)
    if origin is not None and not _is_same_origin(origin, host):
        reason = "the request comes from a web page of another origin; send it from a program instead"
        return Problem(403, "cross_origin", reason, headers=_CLOSING)
    if fetch_site is not None and fetch_site not in _OWN_PAGES and method not in _READS:
        reason = "a web page of another site sent this request; send it from a program instead"
        return Problem(403, "cross_origin", reason, headers=_CLOSING)
    return None


def _is_same_origin(origin: str, host: str) -> bool:
    """Compare host and port only: behind a TLS proxy the page uses https and the server http."""
    scheme, _, authority = origin.partition("://")
    return bool(host) and scheme in ("http", "https") and authority.lower() == host.lower()
