"""Why a request waits: a code for programs and a sentence for people."""

import math
from dataclasses import dataclass

from engine.routing.endpoint import Endpoint
from engine.routing.requests.request_queue import QueuedRequest
from stoker_wire.states import WorkerState

_BOOTING = frozenset(
    {
        WorkerState.PENDING,
        WorkerState.CREATING,
        WorkerState.CREATED,
        WorkerState.LOADING,
        WorkerState.MODEL_LOADING,
        WorkerState.STARTING,
        WorkerState.REBOOTING,
        WorkerState.UPDATE_REBOOTING,
        WorkerState.UPDATE_STARTING,
    }
)
_KNOWN = {"busy", "booting", "recruiting", "no_capacity", "stopped", "worker_failed"}


@dataclass(frozen=True, slots=True)
class Reason:
    """`code` as in `stoker_wire.route.Waiting.reason`; `eta_s` in seconds, if an estimate exists."""

    code: str
    sentence: str
    eta_s: float | None = None


def why_waiting(endpoint: Endpoint, request: QueuedRequest, now: float) -> Reason:
    """Why this request has no worker now."""
    if request.turned_away:
        queued = len(endpoint.request_queue)
        message = f"the queue is full with {queued} requests; this request was not queued, retry later"
        return Reason("busy", message)
    if now < request.paused_until:
        return Reason(
            "worker_failed", "two workers failed the request within a second; it is retried after a pause"
        )
    if request.break_suspect is not None:
        message = (
            "a worker broke with this request and another failed it; "
            "the request waits until it is known whether that one broke"
        )
        return Reason("worker_failed", message)
    if endpoint.stopped:
        return Reason("stopped", "the endpoint is stopped; set endpoint_state to active to serve requests")
    if endpoint.candidates:
        ready = len(endpoint.candidates)
        wait = endpoint.queue_seconds
        eta = None if math.isinf(wait) else round(wait, 1)
        workers = "1 ready worker is" if ready == 1 else f"all {ready} ready workers are"
        return Reason("busy", f"{workers} busy; expected queue time {wait:.0f} s", eta)
    if any(
        w.suspicion.since is not None or now < w.suspicion.excluded_until for w in endpoint.workers.values()
    ):
        return Reason("worker_failed", "the workers did not answer; waiting for their next reports")
    return _no_worker_ready(endpoint, now)


def _no_worker_ready(endpoint: Endpoint, now: float) -> Reason:
    memo = endpoint.memo
    eta = max(0.0, round(memo.wait_until - now, 1)) if memo.wait_until is not None else None
    if memo.wait_reason:
        code = "no_capacity" if memo.wait_code == "budget" else memo.wait_code
        return Reason(code if code in _KNOWN else "recruiting", memo.wait_reason, eta)
    booting = sum(
        1 for worker in endpoint.workers.values() if worker.listed and worker.listing.state in _BOOTING
    )
    if booting:
        message = "1 worker is booting" if booting == 1 else f"{booting} workers are booting"
        return Reason("booting", message, eta)
    if not memo.groups:
        return Reason(
            "no_capacity", "the endpoint has no workergroup and cannot recruit workers; create a workergroup"
        )
    return Reason("recruiting", "no worker is ready; the endpoint is recruiting", eta)
