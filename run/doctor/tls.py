"""Expiry of a server's TLS certificate."""

import ssl
import time

import httpx

from stoker.cli.overview.findings import Finding

DAYS_MIN = 14
"""A certificate that is usually renewed 30 days before its end is overdue then."""


async def read_certificate(http: httpx.AsyncClient, url: str) -> float | None:
    """The end of the certificate with which the server answers, Unix seconds; None: not known.

    Raises:
        httpx.HTTPError: no answer, or the certificate is not trusted.
    """
    async with http.stream("GET", url) as response:
        tls = response.extensions["network_stream"].get_extra_info("ssl_object")
        ends = (tls.getpeercert() or {}).get("notAfter") if tls is not None else None
        return ssl.cert_time_to_seconds(ends) if isinstance(ends, str) else None


def expiry_finding(check: str, ends_at: float | None, remedy: str) -> Finding:
    """How long the certificate is still valid."""
    if ends_at is None:
        return Finding(check, "unknown", "the certificate's end cannot be read", remedy)
    days = (ends_at - time.time()) / 86_400
    until = time.strftime("%Y-%m-%d", time.gmtime(ends_at))
    text = f"the certificate is valid for {days:.0f} days, until {until}"
    return Finding(check, "warning", text, remedy) if days < DAYS_MIN else Finding(check, "ok", text)
