"""Signed-in browsers: an account's key is exchanged for a cookie that scripts cannot read."""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

SESSION_SECONDS = 12 * 3600.0
"""A session ends this long after its last request."""
SESSIONS_MAX = 1_000


@dataclass(slots=True)
class Session:
    """A signed-in browser."""

    account: str
    key: str = field(repr=False)
    csrf: str = field(repr=False)
    """Every form that changes something sends it back; pages of other origins cannot read it."""
    seen_at: float = 0.0
    flash: tuple[str, str] | None = None
    """Kind and text of a message for the next page."""


class Sessions:
    """Open sessions, in memory: after a restart people sign in again."""

    def __init__(self, accounts: Mapping[str, str]) -> None:
        self._digests = [(name, key, _digest(key)) for name, key in accounts.items()]
        self._open: OrderedDict[str, Session] = OrderedDict()
        """By the digest of the cookie, the longest unused first."""

    def __repr__(self) -> str:
        return f"<Sessions {len(self._open)} open>"

    def open(self, key: str, now: float) -> str | None:
        """The cookie of a new session; None: no account has this key."""
        digest, found = _digest(key), None
        for name, own, known in self._digests:
            if hmac.compare_digest(known, digest):
                found = Session(name, own, secrets.token_urlsafe(24), now)
        if found is None:
            return None
        cookie = secrets.token_urlsafe(32)
        self._open[_digest(cookie)] = found
        while len(self._open) > SESSIONS_MAX:
            self._open.popitem(last=False)
        return cookie

    def get(self, cookie: str | None, now: float) -> Session | None:
        """The session of a cookie; None: unknown or expired."""
        session = self._open.get(_digest(cookie)) if cookie else None
        if cookie is None or session is None:
            return None
        if now - session.seen_at > SESSION_SECONDS:
            self.close(cookie)
            return None
        session.seen_at = now
        self._open.move_to_end(_digest(cookie))
        return session

    def close(self, cookie: str | None) -> None:
        """Sign out."""
        if cookie:
            self._open.pop(_digest(cookie), None)


def accepts_token(session: Session, token: object) -> bool:
    """Whether a form carries the session's token."""
    return isinstance(token, str) and hmac.compare_digest(session.csrf.encode(), token.encode())


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()
