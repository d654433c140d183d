"""The certificate authorities that a client trusts: the system's, those of a file, and for workers the engine's own."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable
from functools import cached_property

import httpx

from stoker.errors import Invalid

FETCH_AGAIN_SECONDS = 60.0
"""Between two fetches of the authority, which cost one small call each."""


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
        self._fetch_at = 0.0
        """When the authority is fetched next, monotonic clock."""
        self._loading: asyncio.Task[None] | None = None
        self._added = False

    def __repr__(self) -> str:
        return f"<Trust {self._ca_file or 'of the system'}>"

    @cached_property
    def context(self) -> ssl.SSLContext:
        """The context."""
        context = httpx.create_ssl_context(verify=True)
        if self._ca_file:
            context.load_verify_locations(self._ca_file)
        return context

    async def load(self) -> None:
        """Add the authority that `fetch` returns. Later fetches, for an authority with a new key, delay no request."""
        if self._fetch is None:
            return
        loading, now = self._loading, time.monotonic()
        if loading is not None and loading.get_loop() is not asyncio.get_running_loop():
            loading = None  # of an event loop that has ended
        if now >= self._fetch_at and (loading is None or loading.done()):
            self._fetch_at = now + FETCH_AGAIN_SECONDS
            self._loading = asyncio.ensure_future(self._add(self._fetch))
            if loading is None:
                loading = self._loading
        if loading is not None and not self._added:
            await asyncio.shield(loading)

    async def _add(self, fetch: Callable[[], Awaitable[str | None]]) -> None:
        try:
            pem = await fetch()
        except RuntimeError:  # the client was closed meanwhile
            return
        if pem:
            with contextlib.suppress(ssl.SSLError, ValueError):  # not a certificate; the others remain
                self.context.load_verify_locations(cadata=pem)
                self._added = True
