"""The certificate authorities that a client trusts: the system's, those of a file, and for workers the engine's own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from functools import cached_property

import httpx

from stoker.errors import Invalid


class Trust:
    """A TLS context, made when the first connection with TLS needs it: reading the CA bundle takes tens of ms."""

    def __init__(
        self, ca_file: str = "", *, fetch: Callable[[], Awaitable[str | None]] | None = None
    ) -> None:
        """`ca_file`: certificates in PEM. `fetch` returns one more authority in PEM, or None without one.

        Raises:
            Invalid: the file cannot be read.
        """
        if ca_file:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_file)
            except (OSError, ssl.SSLError) as fault:
                message = f"cannot read certificates in PEM from {ca_file!r}: {fault}; correct STOKER_CA_FILE"
                raise Invalid(message) from None
        self._ca_file = ca_file
        self._fetch = fetch
        self._loading: asyncio.Task[str | None] | None = None

    def __repr__(self) -> str:
        return f"<Trust {self._ca_file or 'of the system'}>"

    @cached_property
    def context(self) -> ssl.SSLContext:
        """The context.

        Raises:
            Invalid: the file cannot be read.
        """
        context = httpx.create_ssl_context(verify=True)
        if self._ca_file:
            try:
                context.load_verify_locations(self._ca_file)
            except (OSError, ssl.SSLError) as fault:
                message = (
                    f"cannot read certificates in PEM from {self._ca_file!r}: {fault}; correct STOKER_CA_FILE"
                )
                raise Invalid(message) from None
        return context

    async def load(self) -> None:
        """Add the authority that `fetch` returns, once it does. Calls at the same time share one fetch."""
        fetch = self._fetch
        if fetch is None:
            return
        if self._loading is None or self._loading.done():
            self._loading = asyncio.ensure_future(fetch())
        pem = await asyncio.shield(self._loading)
        if pem and self._fetch is not None:
            self._fetch = None
            try:
                self.context.load_verify_locations(cadata=pem)
            except (ssl.SSLError, ValueError):
                return  # not a certificate; the system's authorities remain
