"""Bounds retries per endpoint, so that a broken model server is not sent several times the load."""

_TOKENS_MAX = 200.0
"""A worker that fails returns its whole queue at once."""
_TOKENS_PER_REQUEST = 0.2
"""At most one retry for five requests, beyond a burst."""
_BACKOFF_SECONDS = 0.1
_BACKOFF_SECONDS_MAX = 2.0


class RetryBudget:
    """A token bucket: each request adds a part of a token, each retry takes one."""

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens = _TOKENS_MAX

    def __repr__(self) -> str:
        return f"<RetryBudget {self._tokens:.1f} of {_TOKENS_MAX:g} retries>"

    def request(self) -> None:
        """A request came."""
        self._tokens = min(_TOKENS_MAX, self._tokens + _TOKENS_PER_REQUEST)

    def take(self) -> bool:
        """Whether a retry is allowed; if so, it counts."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def backoff_seconds(attempt: int, draw: float) -> float:
    """How long to wait before retry number `attempt` (from 0); `draw` is a random number from 0 to 1."""
    return min(_BACKOFF_SECONDS_MAX, _BACKOFF_SECONDS * 2.0**attempt) * (0.5 + draw / 2)
