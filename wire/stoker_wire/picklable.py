"""Exceptions that travel: to another process, into a copy, through a queue."""

from collections.abc import Callable
from typing import Any


class PicklableError(BaseException):
    """An exception whose attributes survive pickle, copy and deepcopy, whatever arguments its class takes.

    Python rebuilds an exception by calling its class with `args`. A class with keyword-only arguments raises a
    TypeError then, in the parent of a process pool, which breaks the whole pool.
    """

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[Any, ...], dict[str, Any]]:
        """How to make it again without calling its class."""
        return _made_again, (type(self), self.args), self.__dict__.copy()


def _made_again(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    fault = kind.__new__(kind, *args)
    fault.args = args
    return fault
