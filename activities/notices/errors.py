"""Why a notice was not delivered."""


class NotDelivered(Exception):
    """The receiver did not accept it. Without addresses and secrets: histories contain the text."""

    def __init__(self, text: str, *, final: bool = False, retry_after_seconds: float | None = None) -> None:
        super().__init__(text)
        self.final = final
        """Whether the receiver refuses this notice for good, so that a retry makes no sense."""
        self.retry_after_seconds = retry_after_seconds
        """When the receiver wants the next try; None: it does not say."""
