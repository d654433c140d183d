"""The process's limit of open files, which bounds its connections too."""

import contextlib
import resource


def open_files_max() -> int:
    """The number of files and sockets that this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_open_files_max(wanted: int = 1_048_576) -> None:
    """Raise the soft limit towards `wanted`, as far as the hard limit allows.

    Idle connections alone would use up the usual limit of 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
