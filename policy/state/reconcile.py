"""Fold the marketplace's listing into the fleet: what it says of each worker, who fold_instance_gone, and what nobody knows."""

from collections.abc import Container, Iterable
from dataclasses import dataclass

from policy.state.lifecycle import LIFECYCLE, advance
from policy.state.worker import ORPHAN_GROUP, MachineStats, Worker
from policy.state.worker_events import FoldResult, fold_error, fold_instance_gone
from policy.tuning import DEFAULT_TUNING
from stoker_wire.market import Instance
from stoker_wire.states import WorkerState as S

_LABEL_CHARS = 80
_STOPPED = frozenset({"stopped", "exited", "frozen"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The fleet after a listing."""

    workers: tuple[Worker, ...]
    orphans: tuple[Worker, ...]
    """Instances with the endpoint's label that nobody knows, as workers to be destroyed: add them to the fleet."""
    gone: tuple[Worker, ...]
    """Workers whose instance does not exist any more, as they were: released, outbid or killed."""
    learned: MachineStats
    lines: tuple[str, ...] = ()

    @property
    def material(self) -> bool:
        """Whether a plan may come out differently."""
        return bool(self.lines or self.orphans or self.gone)


def fold_listing(
    workers: Iterable[Worker],
    instances: Iterable[Instance],
    *,
    now: float,
    asked_at: float,
    label_prefix: str,
    learned: MachineStats,
    gone: Container[int] = (),
    shown: Container[int] = (),
) -> Listing:
    """The fleet after a complete listing that was asked for at `asked_at`.

    `label_prefix` is `stoker:<endpoint>:`; the rest of a label is the launch id. What the listing says about a worker
    that changed since it was asked for is out of date and only its price and address count.

    `gone` are known instances that the marketplace denied when asked for their ids: only those have vanished.
    `shown` are known instances that the list lacks and that exist. A known id in neither is undecided, and stays.
    A list that lacks instances under our own label is incomplete: nothing is concluded from what else it lacks.
    """
    instances = tuple(instances)
    ours = [each for each in instances if (each.label or "").startswith(label_prefix)]
    by_id = {each.id: each for each in instances}
    # the first instance under a label is the launch's own; a second one would be a double rent
    by_launch = {_launch(each, label_prefix): each for each in sorted(ours, key=lambda each: -each.id)}
    workers = tuple(workers)
    known = {worker.launch_id for worker in workers}
    claimed: set[int] = set()
    kept: list[Worker] = []
    left: list[Worker] = []
    lines: list[str] = []
    omitted = [
        worker.instance_id
        for worker in workers
        if worker.instance_id is not None
        and not _young(worker, asked_at)
        and not worker.operation
        and worker.instance_id not in gone
        and (
            worker.instance_id not in by_id
            or (worker.instance_id in shown and _ours(by_id[worker.instance_id], label_prefix))
        )
    ]
    if omitted:
        lines.append(
            f"the marketplace's list lacks {len(omitted)} of {len(workers)} known instances that were not denied by id "
            f"(first: {omitted[0]}); the list counts as incomplete, and they are kept"
        )
    for worker in workers:
        mine = (
            by_launch.get(worker.launch_id) if worker.instance_id is None else by_id.get(worker.instance_id)
        )
        if mine is None:
            denied = not omitted if worker.instance_id is None else worker.instance_id in gone
            folded = (
                _missing(worker, asked_at, learned) if denied else FoldResult(worker=worker, learned=learned)
            )
        else:
            claimed.add(mine.id)
            folded = _seen(worker, mine, now=now, asked_at=asked_at, learned=learned)
            folded = _labelled(folded, mine, label_prefix)
        learned = folded.learned
        lines += folded.lines
        if folded.worker is None:
            left.append(worker)
        else:
            kept.append(folded.worker)
    orphans = []
    for stranger in ours:
        if stranger.id not in claimed:
            launch_id = _launch(stranger, label_prefix)
            name = f"{launch_id}-{stranger.id}" if launch_id in known or not launch_id else launch_id
            orphans.append(_orphan(stranger, name, now))
            known.add(name)
    lines += [
        f"instance {orphan.instance_id} ({orphan.launch_id}) belongs to no worker and is released"
        for orphan in orphans
    ]
    return Listing(
        workers=tuple(kept), orphans=tuple(orphans), gone=tuple(left), learned=learned, lines=tuple(lines)
    )


def _launch(instance: Instance, label_prefix: str) -> str:
    return (instance.label or "").removeprefix(label_prefix)


def _ours(instance: Instance, label_prefix: str) -> bool:
    return (instance.label or "").startswith(label_prefix)


def _labelled(folded: FoldResult, mine: Instance, label_prefix: str) -> FoldResult:
    """Says once that an instance's label was edited: it stays ours by its id."""
    if folded.worker is None:
        return folded
    edited = not _ours(mine, label_prefix)
    said: tuple[str, ...] = ()
    if edited and not folded.worker.relabelled:
        label = (mine.label or "")[:_LABEL_CHARS]
        line = (
            f"instance {mine.id} carries the label {label!r}, expected {label_prefix}…: it was edited outside"
        )
        said = (f"{line}; the worker is kept by its id",)
    worker = folded.worker.replace(relabelled=edited)
    return FoldResult(worker=worker, learned=folded.learned, lines=(*folded.lines, *said))


def _young(worker: Worker, asked_at: float) -> bool:
    rented_at = worker.since if worker.state is S.CREATING else worker.launched_at
    return asked_at < rented_at + DEFAULT_TUNING.create_grace_seconds


def _missing(worker: Worker, asked_at: float, learned: MachineStats) -> FoldResult:
    young = _young(worker, asked_at)
    creating = worker.operation == "create" or (
        worker.instance_id is None and worker.state is not S.DESTROYING
    )
    under_way = worker.state is S.DESTROYING and (worker.operation == "destroy" or asked_at < worker.since)
    never_asked = (
        worker.state is S.DESTROYING and worker.instance_id is None and worker.retry_at <= worker.since
    )
    if creating or under_way or never_asked or (young and worker.state is not S.DESTROYING):
        return FoldResult(worker=worker, learned=learned)
    return fold_instance_gone(worker, "the market has no such instance any more (outbid or killed)", learned)


def _seen(
    worker: Worker, mine: Instance, *, now: float, asked_at: float, learned: MachineStats
) -> FoldResult:
    status = (mine.actual_status or "").lower()
    worker = worker.replace(
        instance_id=worker.instance_id or mine.id,
        machine_id=mine.machine_id or worker.machine_id,
        dollars_per_hour=mine.dph_total or worker.dollars_per_hour,
        storage_dollars_per_hour=mine.storage_total_cost or worker.storage_dollars_per_hour,
    )
    if asked_at <= worker.since or worker.operation:
        return FoldResult(worker=worker, learned=learned)
    worker = worker.replace(market_status=status, address=_address(worker, mine, status))
    asleep = status in _STOPPED and (mine.intended_status or "stopped").lower() in _STOPPED
    died = status == "exited" and not asleep
    said = mine.status_msg or f"the market says {status}"
    match worker.state:
        case S.PENDING | S.CREATING | S.LOADING | S.MODEL_LOADING if asleep:
            begun = worker.state in (S.LOADING, S.MODEL_LOADING)
            # outbid, most likely: started again at once it would be stopped again
            given_up = worker.starts_given_up + begun
            what = "is stopped and was never loaded"
            return _moved(worker, S.CREATED, now, learned, what, starts_given_up=given_up)
        case S.PENDING | S.CREATING | S.LOADING | S.MODEL_LOADING if died:
            return fold_error(worker, f"its container exited: {said}", now, learned)
        case S.PENDING | S.CREATING | S.LOADING if status == "running":
            return _moved(worker, S.MODEL_LOADING, now, learned, "runs and loads its model")
        case S.PENDING | S.CREATING:
            return _moved(worker, S.LOADING, now, learned, "pulls its image")
        case S.STOPPING if status in _STOPPED:
            to = S.INACTIVE if worker.loaded_once else S.CREATED
            return _moved(worker, to, now, learned, "is stopped", retry_at=0.0, stop_accepted_at=0.0)
        case S.INACTIVE if status == "running":
            return _moved(worker, S.STARTING, now, learned, "was started by someone else")
        case S.CREATED if status == "running":
            return _moved(worker, S.MODEL_LOADING, now, learned, "was started by someone else")
        case S.READY if asleep:
            return _moved(worker, S.INACTIVE, now, learned, "was stopped by someone else")
        case S.READY if died:
            return fold_error(worker, f"its container exited: {said}", now, learned)
        case S.READY if status == "offline" and worker.suspect_since is None:
            line = f"{worker.launch_id[:6]} ({worker.kind}): its host is offline"
            return FoldResult(worker=worker.replace(suspect_since=now), learned=learned, lines=(line,))
        case _:
            return FoldResult(worker=worker, learned=learned)


def _address(worker: Worker, mine: Instance, status: str) -> str:
    """Only of what runs: a stopped machine is shown at the address that it had."""
    return mine.address if status == "running" and mine.address else worker.address


def _moved(
    worker: Worker, to: S, now: float, learned: MachineStats, what: str, **changes: object
) -> FoldResult:
    if to not in LIFECYCLE[worker.state].moves:
        return FoldResult(worker=worker, learned=learned)
    line = f"{worker.launch_id[:6]} ({worker.kind}) {what}"
    return FoldResult(worker=advance(worker, to, now, **changes), learned=learned, lines=(line,))


def _orphan(instance: Instance, launch_id: str, now: float) -> Worker:
    kind = f"{instance.num_gpus}x {instance.gpu_name or 'unknown'}"
    return Worker(
        launch_id=launch_id,
        workergroup_id=ORPHAN_GROUP,
        revision=0,
        kind=kind,
        state=S.DESTROYING,
        since=now,
        launched_at=now,
        machine_id=instance.machine_id,
        instance_id=instance.id,
        dollars_per_hour=instance.dph_total,
        left_running=(instance.actual_status or "").lower() not in _STOPPED,
        error="belongs to no worker",
    )
