"""Exceptions that can be pickled and copied."""

from collections.abc import Callable
from typing import Any


class PicklableError(BaseException):
    """An exception that keeps its attributes through pickle, copy and deepcopy, whatever its constructor takes.

    Python rebuilds an exception by calling its class with `args`. With keyword-only arguments that raises a TypeError,
    which breaks a process pool in its parent process.
    """

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[Any, ...], dict[str, Any]]:
        """Rebuild the exception without calling its constructor."""
        return _rebuild, (type(self), self.args), self.__dict__.copy()


def _rebuild(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    fault = kind.__new__(kind, *args)
    fault.args = args
    return fault
