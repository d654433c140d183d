"""Liveness: which ready workers have stopped reporting, unless the engines themselves cannot receive reports."""

from dataclasses import replace

from policy.state.lifecycle import is_billed_until_gone, is_hot
from policy.state.observation import Observation
from policy.state.worker import Worker
from policy.tuning import Tuning
from stoker_wire.states import WorkerState


def unresponsive_since(worker: Worker, observation: Observation, tuning: Tuning) -> float | None:
    """Since when a ready worker has not reported although the engines have; None: it is responsive or unknown.

    Measured at the latest engine report: missing engine reports are not evidence of a dead worker.
    """
    known_until = observation.load.known_until
    if not is_hot(worker) or known_until is None:
        return None
    reported_at = max(worker.reported_at or 0.0, worker.since, observation.listening_since)
    return reported_at if known_until - reported_at > tuning.unresponsive_seconds else None


def mark_unresponsive(observation: Observation, tuning: Tuning) -> Observation:
    """Mark unresponsive workers as suspected, unless more than half of the workers are unresponsive.

    Many workers on different hosts do not fail within a minute; the network of the engines does. The workers then
    still count as capacity. Workers in repair, or just stopped or released, count as unresponsive too: repairing the
    first one must not make a suspicion of the second one more likely.
    """
    ready = [worker for worker in observation.workers if is_hot(worker)]
    unresponsive = {
        worker.launch_id: since
        for worker in ready
        if (since := unresponsive_since(worker, observation, tuning)) is not None
    }
    if not unresponsive:
        return observation
    repaired = sum(_is_in_repair(worker, observation, tuning) for worker in observation.workers)
    counted = len(ready) + repaired
    if counted > 1 and len(unresponsive) + repaired > counted / 2:
        return observation
    marked = tuple(
        worker.replace(suspect_since=unresponsive[worker.launch_id])
        if worker.launch_id in unresponsive and worker.suspect_since is None
        else worker
        for worker in observation.workers
    )
    return replace(observation, workers=marked)


def _is_in_repair(worker: Worker, observation: Observation, tuning: Tuning) -> bool:
    if worker.state is WorkerState.REBOOTING:
        return True
    return is_billed_until_gone(worker) and observation.now - worker.since < tuning.unresponsive_seconds
