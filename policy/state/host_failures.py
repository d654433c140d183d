"""Which hosts are not rented again for a while. A host is blamed only for what differs between hosts.

The same failure on several hosts is the template's, or a request's: then no host is blocked for it, and the workergroup
pauses if none of its workers serves. A failure before a worker was ready is the hosts' own where the same revision has
loaded on another host. A hardware fault is always the host's.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from policy.state.worker import HostFailure, Worker
from policy.tuning import DEFAULT_TUNING

_CAUSE_CHARS = 80
_HARDWARE = re.compile(r"\bxid\b|\becc\b")
_VARIES = re.compile(r"\b(?:0x)?[0-9a-f]*\d[0-9a-f]*\b")
"""Numbers, addresses and ids: two hosts never say the same ones."""

Cause = tuple[int, int, bool, str]
"""Workergroup, revision, whether the worker had been ready, and the failure without what varies."""


def cause_of(failure: str) -> str:
    """The failure without numbers, addresses and ids: equal for the same failure on two hosts."""
    return " ".join(_VARIES.sub("#", failure.lower()).split())[:_CAUSE_CHARS]


def shared_causes(failures: Iterable[HostFailure], workers: Iterable[Worker]) -> dict[Cause, int]:
    """Failures that are not the hosts', with how often each was seen."""
    hosts: dict[Cause, set[int]] = defaultdict(set)
    times: Counter[Cause] = Counter()
    for each in failures:
        if each.cause and each.failed_at > 0 and not _HARDWARE.search(each.cause):
            hosts[_key(each)].add(each.machine_id)
            times[_key(each)] += each.times
    loaded = {(worker.workergroup_id, worker.revision) for worker in workers if worker.loaded_once}
    return {
        key: times[key]
        for key, machines in hosts.items()
        if len(machines) >= DEFAULT_TUNING.shared_failure_hosts_min and (key[2] or key[:2] not in loaded)
    }


def split(
    failures: Iterable[HostFailure], workers: Iterable[Worker], now: float
) -> tuple[tuple[HostFailure, ...], tuple[HostFailure, ...]]:
    """The hosts that are blocked now, and those that would be if their failure were theirs."""
    current = [each for each in failures if each.until > now]
    shared = shared_causes(current, workers)
    blocked = tuple(each for each in current if _key(each) not in shared)
    lifted = tuple(each for each in current if _key(each) in shared)
    return blocked, lifted


def _key(failure: HostFailure) -> Cause:
    return failure.workergroup_id, failure.revision, failure.after_ready, failure.cause
