"""Forward proxies by the usual environment variables: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from stoker.errors import Invalid

PROXY_SCHEMES = frozenset({"http", "https"})


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """The proxy of each URL scheme, and the hosts that are reached without one.

    Loopback addresses never use a proxy: a proxy on another machine would connect to itself.
    """

    by_scheme: Mapping[str, httpx.Proxy | Invalid]
    """Scheme of the target (`http` or `https`) → proxy, or the error of a proxy address that cannot be used."""
    excluded: tuple[str, ...] = ()
    """Entries of NO_PROXY: a host, a domain with its subdomains, `host:port`, an address, a network, or `*`."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> ProxySettings:
        """Read the variables. The lower-case name wins, as for curl; an empty value means no proxy.

        HTTP_PROXY is ignored in a CGI program (REQUEST_METHOD is set), where the header `Proxy:` of a request sets it.
        """
        by_scheme = {}
        for scheme in ("http", "https"):
            names = [f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY"]
            if scheme == "http" and "REQUEST_METHOD" in environ:
                names.remove("HTTP_PROXY")
            name = next((name for name in names if name in environ), "")
            if environ.get(name):
                by_scheme[scheme] = _read_proxy(name, environ[name])
        no_proxy = environ.get("no_proxy", environ.get("NO_PROXY", ""))
        entries = (entry.strip().lower() for entry in no_proxy.split(","))
        return cls(by_scheme, tuple(entry for entry in entries if entry))

    def proxy_for(self, url: httpx.URL) -> httpx.Proxy | None:
        """The proxy through which this URL is reached; None: directly.

        Raises:
            Invalid: the address of the proxy cannot be used.
        """
        proxy = self.by_scheme.get(url.scheme)
        if proxy is None or _is_loopback(url.host):
            return None
        host, port = url.host.lower().rstrip("."), url.port or {"http": 80, "https": 443}[url.scheme]
        if any(_matches(entry, host, port) for entry in self.excluded):
            return None
        if isinstance(proxy, Invalid):
            raise Invalid(*proxy.args)
        return proxy


def _read_proxy(name: str, address: str) -> httpx.Proxy | Invalid:
    try:
        url = httpx.URL(address if "://" in address else f"http://{address}")
        usable = url.scheme in PROXY_SCHEMES and bool(url.host)
    except httpx.InvalidURL:
        usable = False
    if not usable:
        return Invalid(
            f"{name} is not the address of an HTTP proxy; expected one like http://proxy.example:3128. "
            "Correct or unset it, or list the engine's and the workers' hosts in NO_PROXY"
        )
    return httpx.Proxy(url)


def _is_loopback(host: str) -> bool:
    address = _read_address(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _matches(entry: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY names this host."""
    if entry == "*":
        return True
    address = _read_address(host)
    if address is not None:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            pass  # not a network; it may still be an address with a port
    name, colon, number = entry.rpartition(":")
    if colon and number.isdigit() and not name.endswith(":"):
        if int(number) != port:
            return False
        entry = name
    if address is not None:
        return _read_address(entry.strip("[]")) == address
    domain = entry.removeprefix("*").lstrip(".").rstrip(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _read_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
