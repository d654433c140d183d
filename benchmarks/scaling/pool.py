"""Many runs on several cores, with results in the order of the jobs."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
_JOBS: Sequence[Callable[[], Any]] = ()


def in_order(jobs: Sequence[Callable[[], T]], processes: int) -> Iterator[T]:
    """The jobs' results, in order. Each job runs in a forked process, so it sees only state from before."""
    global _JOBS  # noqa: PLW0603 - forked processes find the jobs here, so that nothing has to be pickled
    if processes <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield job()
        return
    _JOBS = jobs
    with multiprocessing.get_context("fork").Pool(min(processes, len(jobs))) as pool:
        yield from pool.imap(_do, range(len(jobs)), chunksize=1)


def cores() -> int:
    """The number of usable cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _do(number: int) -> Any:
    return _JOBS[number]()
