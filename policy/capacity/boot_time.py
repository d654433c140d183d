"""Boot and start times: when a booting worker is expected, and when it is overdue."""

from policy.state.worker import MachineStats, Worker
from policy.tuning import Tuning
from stoker_wire.market import Offer


def ready_at(worker: Worker, learned: MachineStats, tuning: Tuning) -> float:
    """When a booting worker is expected to be ready, Unix seconds."""
    return _began_at(worker) + expected_seconds(worker, learned, tuning)


def expected_seconds(worker: Worker, learned: MachineStats, tuning: Tuning) -> float:
    """Expected duration of a worker's boot, or of its start if it has loaded before.

    Sources in this order: measurements of its machine kind, measurements of all kinds, the default.
    """
    record = learned.kind(worker.workergroup_id, worker.kind)
    if worker.loaded_once:
        own = record.start_seconds if record is not None and record.starts else 0.0
        return own or start_seconds(learned, tuning)
    own = record.boot_seconds if record is not None and record.boots else 0.0
    return own or boot_seconds(learned, tuning)


def seconds_on(offer: Offer, workergroup_id: int, learned: MachineStats, tuning: Tuning) -> float:
    """Expected duration of a boot on an offered machine.

    Sources in this order: earlier boots on this host, measurements of its machine kind, of all kinds, the default.
    """
    host = learned.host(workergroup_id, offer.machine_id) if offer.machine_id else None
    if host is not None:
        return host.boot_seconds
    record = learned.kind(workergroup_id, offer.kind)
    if record is not None and record.boots:
        return record.boot_seconds
    return boot_seconds(learned, tuning)


def boot_seconds(learned: MachineStats, tuning: Tuning) -> float:
    """Expected duration of a new machine's boot."""
    return _mean([each.boot_seconds for each in learned.kinds if each.boots]) or tuning.boot_seconds_default


def start_seconds(learned: MachineStats, tuning: Tuning) -> float:
    """Expected duration of a cold worker's start."""
    return (
        _mean([each.start_seconds for each in learned.kinds if each.starts]) or tuning.start_seconds_default
    )


def is_slower_than_start(worker: Worker, learned: MachineStats, now: float, tuning: Tuning) -> bool:
    """Whether a cold worker started now would be ready before this one, which boots for the first time."""
    if worker.loaded_once:
        return False
    starts = [each.start_seconds for each in learned.kinds if each.starts]
    return ready_at(worker, learned, tuning) > now + min(starts, default=tuning.start_seconds_default)


def overdue_at(worker: Worker, learned: MachineStats, tuning: Tuning) -> float:
    """When a booting worker stops counting as capacity, Unix seconds. Another is then started or rented beside it.

    Slow hosts and starts that wait for an occupied GPU show no other sign. The worker is given up only at its
    deadline, which is much later.
    """
    return _began_at(worker) + tuning.overdue_factor * expected_seconds(worker, learned, tuning)


def _began_at(worker: Worker) -> float:
    return worker.since if worker.loaded_once else worker.launched_at


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
