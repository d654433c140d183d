"""The error of `stokerd` commands."""

from stoker_wire.errors.picklable import PicklableError


class CommandError(PicklableError, Exception):
    """An error that the user can correct. `stokerd` prints the message and exits with `exit_code`."""

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        self.exit_code = exit_code
        super().__init__(message)
