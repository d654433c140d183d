"""What can be wrong with a deployment before it runs: said in one sentence, with an exit code."""

from stoker_wire.picklable import PicklableError


class CommandError(PicklableError, Exception):
    """A fault that a person can mend. `stokerd` prints the sentence and exits with `exit_code`."""

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        self.exit_code = exit_code
        super().__init__(message)
