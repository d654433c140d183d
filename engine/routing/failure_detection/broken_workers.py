"""Detects broken workers, and counts the requests that they held: `BrokenRequests` keeps the result. No I/O."""

from collections.abc import Collection

from engine.routing.endpoint import Endpoint
from engine.routing.failure_detection.suspicion import Unserved
from engine.routing.requests.request_queue import BreakSuspect, QueuedRequest
from engine.routing.worker import KnownWorker
from engine.settings import Timing
from policy.tuning import DEFAULT_TUNING
from stoker_wire.states import WorkerState

_BROKEN = frozenset({WorkerState.ERROR, WorkerState.REBOOTING})


def record_break(
    endpoint: Endpoint,
    worker: KnownWorker,
    held: Collection[int],
    cause: str,
    now: float,
    *,
    reports_ends: bool = False,
) -> None:
    """A worker broke while it held these requests: each is retried once, on another worker.

    Args:
        reports_ends: the worker still reports how each request ended. Then only requests that had reached the model
            count; requests in the worker's own queue had not.
    """
    breaks = worker.breaks
    breaks.at, breaks.cause = now, cause
    recent = {
        key: each
        for key, each in breaks.unserved.items()
        if now - each.at <= DEFAULT_TUNING.request_blame_seconds
    }
    breaks.unserved = {key: each for key, each in recent.items() if reports_ends and not each.reported}
    requests: list[QueuedRequest] = [
        each.request for key, each in recent.items() if key not in breaks.unserved
    ]
    for request_idx in () if reports_ends else held:
        assigned = endpoint.assigned.get(request_idx)
        if assigned is not None and assigned.worker is worker:
            requests.append(assigned)
    for request in requests:
        _count_break(endpoint, worker, request, now)


def _count_break(endpoint: Endpoint, worker: KnownWorker, request: QueuedRequest, now: float) -> None:
    record = endpoint.broken_requests.add(request.key, worker, now)
    if request.is_identified:
        endpoint.metrics_batcher.mark_changed()  # other engines have to know
    if request.worker is worker:
        return
    # The client asked again before the worker's report arrived.
    assigned = endpoint.assigned.get(request.request_idx)
    waiting = endpoint.waiting.get(request.request_idx)
    if assigned is request:
        record.retry = assigned
    elif waiting is not None and waiting is request and waiting.break_suspect is None:
        for other in endpoint.workers.values():
            if other is not worker and (left := other.breaks.unserved.get(waiting.key)) is not None:
                record.retry, waiting.break_suspect = waiting, BreakSuspect(other, left.at)


def record_failed_request(
    endpoint: Endpoint, worker: KnownWorker, request: QueuedRequest, now: float
) -> None:
    """The worker reports a failed request. Count it as a break if the worker just broke, else remember it."""
    if now - worker.breaks.at <= DEFAULT_TUNING.request_blame_seconds:
        worker.breaks.unserved.pop(request.key, None)
        _count_break(endpoint, worker, request, now)
    else:
        worker.breaks.add_unserved(request, now, reported=True)


def finish_left(
    endpoint: Endpoint,
    worker: KnownWorker,
    request_idx: int,
    *,
    harmless: bool,
    now: float,
) -> bool:
    """The worker reports the end of a request whose client has already asked for another worker.

    Args:
        harmless: the request was served, or never reached the model.

    Returns:
        Whether queued requests may be assigned because of it.
    """
    request = endpoint.waiting.get(request_idx) or endpoint.assigned.get(request_idx)
    if request is None:
        return False
    if request.key not in worker.breaks.unserved and worker.launch_id not in request.unread_by:
        return False
    request.unread_by -= {worker.launch_id}
    if harmless:
        worker.breaks.unserved.pop(request.key, None)  # it did not break the worker
    else:
        record_failed_request(endpoint, worker, request, now)
    return True


def detect_break(endpoint: Endpoint, worker: KnownWorker, timing: Timing, now: float) -> bool:
    """Detect a worker that broke without reporting it: its reports stopped, or its workflow says so.

    Returns:
        Whether it broke: its requests may be assigned to other workers.
    """
    breaks, listing, reported_at = worker.breaks, worker.listing, worker.report.reported_at
    if now - breaks.at <= DEFAULT_TUNING.request_blame_seconds:
        for each in list(breaks.unserved.values()):
            if not each.reported and now - each.at >= DEFAULT_TUNING.request_end_report_seconds:
                record_failed_request(endpoint, worker, each.request, now)
    by_workflow = listing.state in _BROKEN and listing.since != breaks.state_since
    silent = (
        reported_at > max(0.0, breaks.at)
        and now - max(reported_at, endpoint.sweeping_since) > timing.report_fresh_seconds
        and _others_report(endpoint, worker, now - timing.report_fresh_seconds / 2)
    )
    if by_workflow:
        breaks.state_since = listing.since
    if not silent and not (by_workflow and now - breaks.at > DEFAULT_TUNING.request_blame_seconds):
        return False
    held = [idx for idx, request in endpoint.assigned.items() if request.worker is worker]
    # Requests that left the worker since its last report left it because of the break.
    for key, each in breaks.unserved.items():
        left_at = now if each.at >= reported_at - DEFAULT_TUNING.request_blame_seconds else each.at
        breaks.unserved[key] = Unserved(left_at, each.request, each.reported)
    record_break(endpoint, worker, held, listing.error or "it stopped reporting", now)
    return True


def _others_report(endpoint: Endpoint, worker: KnownWorker, since: float) -> bool:
    """Whether another worker has reported since then. If none has, the network is cut, and no request is to blame."""
    return any(
        other.report.reported_at >= since for other in endpoint.workers.values() if other is not worker
    )


def record_left(
    endpoint: Endpoint, worker: KnownWorker, request: QueuedRequest, now: float, *, unread: bool
) -> None:
    """The client asks again for a request whose ticket for this worker is withdrawn: remember it as unserved.

    Args:
        unread: the client says that the worker did not process it. The worker's reports outweigh that.
    """
    if unread and not request.finished and not worker.outstanding.knows(request.request_idx):
        request.unread_by |= {worker.launch_id}
        return
    record = endpoint.broken_requests.get(request.key, now)
    counted = record is not None and (worker.launch_id, worker.breaks.at) in record.breaks
    if not request.finished and not counted:
        worker.breaks.add_unserved(request, now, reported=False)
    if request.key not in worker.breaks.unserved:
        return
    # Two workers failed it within seconds: before a third one gets it, their reports say whether they broke.
    if record is not None or any(
        other is not worker and now - left.at <= DEFAULT_TUNING.request_blame_seconds
        for other in endpoint.workers.values()
        if (left := other.breaks.unserved.get(request.key)) is not None
    ):
        request.break_suspect = BreakSuspect(worker, now)


def settle_suspect(endpoint: Endpoint, request: QueuedRequest, now: float) -> None:
    """Clear the suspect if it reports without error since, or count a break if the worker has disappeared."""
    suspect = request.break_suspect
    if suspect is None:
        return
    worker = suspect.worker
    if endpoint.workers.get(worker.launch_id) is not worker:
        request.break_suspect = None
        if not worker.listing.draining:
            endpoint.broken_requests.add(request.key, worker, now)
    elif request.key not in worker.breaks.unserved or (
        worker.report.reported_at >= suspect.failed_at + DEFAULT_TUNING.request_verdict_seconds
        and not worker.report.error
    ):
        worker.breaks.unserved.pop(request.key, None)
        request.break_suspect = None


def identify(endpoint: Endpoint, request: QueuedRequest | None, fingerprint: str) -> None:
    """The worker names the content of a request whose client sent no fingerprint."""
    if request is None or request.is_identified:
        return
    before, request.key = request.key, fingerprint
    endpoint.broken_requests.identify(before, fingerprint)
    held_by = request.avoid if request.worker is None else {*request.avoid, request.worker.launch_id}
    for launch_id in held_by:
        worker = endpoint.workers.get(launch_id)
        unserved = None if worker is None else worker.breaks.unserved.pop(before, None)
        if worker is not None and unserved is not None:
            worker.breaks.unserved[fingerprint] = unserved


def is_retried(endpoint: Endpoint, retry: QueuedRequest | None, request: QueuedRequest) -> bool:
    """Whether another copy of the request is on a worker now, or waits until its last worker is judged."""
    if retry is None or retry is request:
        return False
    if retry.break_suspect is not None and endpoint.waiting.get(retry.request_idx) is retry:
        return True
    worker = retry.worker
    assigned = endpoint.assigned.get(retry.request_idx) is retry
    return assigned and worker is not None and worker.outstanding.knows(retry.request_idx)
