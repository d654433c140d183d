"""Which ready workers have fallen silent, and when silence is our own deafness."""

from dataclasses import replace

from policy.state.lifecycle import is_billed_until_gone, is_hot
from policy.state.observation import Observation
from policy.state.worker import Worker
from policy.tuning import Tuning
from stoker_wire.states import WorkerState


def silent_since(worker: Worker, observation: Observation, tuning: Tuning) -> float | None:
    """Since when a ready worker has said nothing although the engines spoke, or None.

    Measured at the last word of the engines: when they are silent themselves, nothing is known about the worker.
    """
    known_until = observation.load.known_until
    if not is_hot(worker) or known_until is None:
        return None
    heard = max(worker.reported_at or 0.0, worker.since, observation.listening_since)
    return heard if known_until - heard > tuning.unresponsive_seconds else None


def mark_unresponsive(observation: Observation, tuning: Tuning) -> Observation:
    """The observation with silent workers marked as suspects, unless more than half of the ready ones are silent.

    Several workers on several hosts do not die in one minute; the line to the engines does. Then they are kept as
    capacity: no data is not no load, and not no worker either. Those that reboot, or have just been told to stop or go, count as
    silent: mending the first does not make the second one's silence more credible.
    """
    ready = [worker for worker in observation.workers if is_hot(worker)]
    silent = {
        worker.launch_id: since
        for worker in ready
        if (since := silent_since(worker, observation, tuning)) is not None
    }
    if not silent:
        return observation
    mended = sum(_is_mended(worker, observation, tuning) for worker in observation.workers)
    asked = len(ready) + mended
    if asked > 1 and len(silent) + mended > asked / 2:
        return observation
    marked = tuple(
        worker.replace(suspect_since=silent[worker.launch_id])
        if worker.launch_id in silent and worker.suspect_since is None
        else worker
        for worker in observation.workers
    )
    return replace(observation, workers=marked)


def _is_mended(worker: Worker, observation: Observation, tuning: Tuning) -> bool:
    if worker.state is WorkerState.REBOOTING:
        return True
    return is_billed_until_gone(worker) and observation.now - worker.since < tuning.unresponsive_seconds
