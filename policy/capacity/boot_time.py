"""How far what boots can be relied on: when it is expected, when a start would overtake it, when it is overdue."""

from policy.state.worker import Learned, Worker
from policy.tuning import Tuning


def ready_at(worker: Worker, learned: Learned, tuning: Tuning) -> float:
    """When a booting worker is expected to be ready, by what its kind took before."""
    return _asked_at(worker) + expected_seconds(worker, learned, tuning)


def expected_seconds(worker: Worker, learned: Learned, tuning: Tuning) -> float:
    """What a boot, or a start of one that loaded before, takes: of its kind, else of the others, else a guess."""
    record = learned.kind(worker.workergroup_id, worker.kind)
    if worker.loaded_once:
        others = [each.start_seconds for each in learned.kinds if each.starts]
        own = record.start_seconds if record is not None and record.starts else 0.0
        return own or _mean(others) or tuning.start_seconds_unknown
    own = record.boot_seconds if record is not None and record.boots else 0.0
    return own or boot_seconds(learned, tuning)


def boot_seconds(learned: Learned, tuning: Tuning) -> float:
    """What a new machine takes, by all that were seen, else a guess."""
    return _mean([each.boot_seconds for each in learned.kinds if each.boots]) or tuning.boot_seconds_unknown


def start_seconds(learned: Learned, tuning: Tuning) -> float:
    """What a cold worker takes, by all that were seen, else a guess."""
    return (
        _mean([each.start_seconds for each in learned.kinds if each.starts]) or tuning.start_seconds_unknown
    )


def is_late(worker: Worker, learned: Learned, now: float, tuning: Tuning) -> bool:
    """Whether a cold worker that is started now would be ready before this one that boots for the first time."""
    if worker.loaded_once:
        return False
    starts = [each.start_seconds for each in learned.kinds if each.starts]
    return ready_at(worker, learned, tuning) > now + min(starts, default=tuning.start_seconds_unknown)


def overdue_at(worker: Worker, learned: Learned, tuning: Tuning) -> float:
    """From when on it is not relied on any more: another is woken or rented beside it, and whoever comes first serves.

    A host that pulls at a tenth of the speed, or a stopped machine whose GPU somebody else has, looks like any other until
    then; its deadline, when it is given up, is much later.
    """
    return _asked_at(worker) + tuning.overdue_factor * expected_seconds(worker, learned, tuning)


def _asked_at(worker: Worker) -> float:
    return worker.since if worker.loaded_once else worker.launched_at


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
