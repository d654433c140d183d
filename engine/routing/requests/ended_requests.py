"""How requests ended, for the statistics and the request log."""

from collections import OrderedDict
from collections.abc import Iterator

from engine.request_log import Outcome
from engine.request_stats import EndedRequest
from engine.routing.requests.request_queue import QueuedRequest


def outcome_of(request: QueuedRequest) -> Outcome:
    """Done, failed, or unknown because no worker has reported its end."""
    if not request.finished:
        return Outcome.UNKNOWN
    return Outcome.DONE if request.succeeded else Outcome.FAILED


def ended_request(
    request: QueuedRequest,
    outcome: str,
    *,
    busy_seconds: float = 0.0,
    queued_seconds: float = 0.0,
    first_byte_seconds: float = 0.0,
) -> EndedRequest:
    """The request as a row of the statistics."""
    waited = request.seen_at - request.arrived_at if request.waited_s is None else request.waited_s
    return EndedRequest(
        request_idx=request.request_idx,
        arrived_at=request.arrived_at,
        cost=request.cost,
        waited_s=waited,
        took_s=request.took_s or 0.0,
        busy_s=busy_seconds,
        queued_s=queued_seconds,
        first_byte_s=first_byte_seconds,
        launch_id=request.worker.launch_id if request.worker else "",
        gpu=request.worker.listing.kind if request.worker else "",
        outcome=outcome,
    )


def forget_oldest(
    requests: OrderedDict[int, QueuedRequest], before: float, keep_max: int
) -> Iterator[QueuedRequest]:
    """Remove and yield the oldest requests: those assigned before this time, and those beyond the number kept."""
    while requests:
        request = next(iter(requests.values()))
        if request.assigned_at > before and len(requests) <= keep_max:
            return
        requests.popitem(last=False)
        yield request
