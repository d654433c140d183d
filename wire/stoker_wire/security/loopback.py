"""Recognises loopback addresses, which need no TLS and which a proxy cannot reach."""

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether a host (a name or an IP address, IPv6 with or without brackets) is this machine's loopback interface."""
    name = host.strip("[]").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def is_loopback_url(url: str) -> bool:
    """Whether a URL's host is loopback; False for an invalid URL."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False
