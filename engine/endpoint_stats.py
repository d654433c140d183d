"""An endpoint's live figures, for metrics, the overview and the dashboard. No I/O."""

from collections.abc import Iterable

from engine import fleet_stats
from engine.routing.directory import WAIT_FAILED
from engine.routing.endpoint import Endpoint
from engine.routing.worker import KnownWorker
from stoker_wire.states import STAGES


def listed_workers(endpoint: Endpoint) -> list[KnownWorker]:
    """The workers that the endpoint's workflow knows."""
    return [worker for worker in endpoint.workers.values() if worker.listed]


def workers_by_state(endpoint: Endpoint) -> dict[str, int]:
    """Number of workers by status."""
    states: dict[str, int] = {}
    for worker in listed_workers(endpoint):
        states[worker.listing.state.value] = states.get(worker.listing.state.value, 0) + 1
    return states


def workers_by_stage(endpoint: Endpoint) -> dict[str, int]:
    """Number of workers that are ready, on the way to ready, stopped, or have an error. Others are ending."""
    stages = dict.fromkeys(STAGES, 0)
    for worker in listed_workers(endpoint):
        if stage := worker.listing.state.stage:
            stages[stage] += 1
    return stages


def capacity(endpoint: Endpoint) -> dict[str, float]:
    """Load per second by stage. A worker without a measured perf counts with the mean of the others."""
    listed = listed_workers(endpoint)
    known = [worker.trusted_perf for worker in listed if worker.trusted_perf > 0]
    mean = sum(known) / len(known) if known else 0.0

    def total(workers: Iterable[KnownWorker]) -> float:
        return sum(worker.trusted_perf or mean for worker in workers)

    return {
        "hot": endpoint.perf,
        "booting": total(worker for worker in listed if worker.listing.state.stage == "booting"),
        "cold": total(worker for worker in listed if worker.listing.state.stage == "cold"),
    }


def gpu_dollars_per_hour(endpoint: Endpoint) -> dict[str, float]:
    """$/h of the workers whose GPU is billed, by stage; storage of stopped workers is in the costs."""
    return fleet_stats.gpu_dollars_per_hour(worker.listing for worker in listed_workers(endpoint))


def oldest_wait_seconds(endpoint: Endpoint, now: float) -> float:
    """Waiting time of the oldest queued request; 0 without one."""
    oldest = endpoint.request_queue.oldest
    return max(0.0, now - oldest.arrived_at) if oldest else 0.0


def health(endpoint: Endpoint) -> str:
    """The endpoint's condition in a word, for operators."""
    if endpoint.fault:
        return "stuck"
    if endpoint.deleting:
        return "deleting"
    if endpoint.stopped:
        return "stopped"
    if endpoint.request_queue and not endpoint.candidates:
        return "waiting"
    if endpoint.perf > 0 and endpoint.queue_seconds > endpoint.config.target_queue_time:
        return "late"
    if endpoint.memo.wait_code == WAIT_FAILED or any(map(_fails, listed_workers(endpoint))):
        return "degraded"
    return "ok" if endpoint.candidates else "idle"


def worker_error(endpoint: Endpoint) -> str:
    """The error of a worker that fails, or why no more are rented after failures; empty: none is named."""
    failing = (worker for worker in listed_workers(endpoint) if _fails(worker))
    error = next((text for worker in failing if (text := worker.report.error or worker.listing.error)), "")
    return error or (endpoint.memo.wait_reason if endpoint.memo.wait_code == WAIT_FAILED else "")


def _fails(worker: KnownWorker) -> bool:
    return bool(worker.listing.state.stage == "failed" or worker.report.error or worker.suspicion.since)
