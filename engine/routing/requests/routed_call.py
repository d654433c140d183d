"""A route request as the dispatcher reads it."""

from typing import Protocol


class RoutedCall(Protocol):
    """A parsed route request."""

    @property
    def cost(self) -> float:
        """Load of the request."""
        ...

    @property
    def request_idx(self) -> int:
        """0: a new request."""
        ...

    @property
    def replay_timeout(self) -> float:
        """Seconds for which the request keeps its position between two calls."""
        ...

    @property
    def failed_url(self) -> str:
        """Address of the worker that just failed the request; empty: none."""
        ...

    @property
    def unread(self) -> bool:
        """That worker did not process the request: no connection, or it refused."""
        ...

    @property
    def fingerprint(self) -> str:
        """Equal for all copies of the request; empty: not given."""
        ...

    @property
    def affinity(self) -> str:
        """Equal for requests that one worker serves best; empty: not given."""
        ...
