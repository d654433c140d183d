"""Which hosts are blocked after failures: only those whose failure is not shared with other hosts.

The same failure on several hosts is caused by the template or by a request. It blocks no host; the workergroup pauses
if none of its workers serves. A failure before a worker was ready is attributed to the host if the same revision has
loaded on another host. A hardware error is always attributed to the host.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable

from policy.state.observation import Observation
from policy.state.worker import HostFailure, Worker
from policy.tuning import DEFAULT_TUNING

_CAUSE_CHARS = 80
_HARDWARE = re.compile(r"\bxid\b|\becc\b")
_VARIES = re.compile(r"\b(?:0x)?[0-9a-f]*\d[0-9a-f]*\b")
"""Numbers, addresses and ids differ between hosts."""

LAST_FAILURE = "; last failure: "
"""Begins the clause of a wait that tells why the last launch failed."""

Cause = tuple[int, int, bool, str]
"""(workergroup id, revision, whether the worker had been ready, normalised error)."""


def cause_of(failure: str) -> str:
    """The error without numbers, addresses and ids: equal for the same failure on two hosts."""
    return " ".join(_VARIES.sub("#", failure.lower()).split())[:_CAUSE_CHARS]


def shared_causes(failures: Iterable[HostFailure], workers: Iterable[Worker]) -> dict[Cause, int]:
    """Causes that several hosts share, with the number of their failures."""
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
    """The hosts that are blocked now, and those that are not blocked because they share their failure with others."""
    current = [each for each in failures if each.until > now]
    shared = shared_causes(current, workers)
    blocked = tuple(each for each in current if _key(each) not in shared)
    lifted = tuple(each for each in current if _key(each) in shared)
    return blocked, lifted


def last_failure(failures: Iterable[HostFailure], group_ids: Collection[int], seen: Observation) -> str:
    """Why the newest launch of these workergroups failed, until one of their workers has been ready; else empty."""
    revisions = {group.id: group.revision for group in seen.workergroups if group.id in group_ids}
    if any(worker.loaded_once and worker.workergroup_id in revisions for worker in seen.workers):
        return ""
    failed = [
        each
        for each in failures
        if each.failed_at > 0 and each.revision == revisions.get(each.workergroup_id)
    ]
    return max(failed, key=lambda each: each.failed_at).reason if failed else ""


def _key(failure: HostFailure) -> Cause:
    return failure.workergroup_id, failure.revision, failure.after_ready, failure.cause
