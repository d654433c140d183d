"""Reconcile the workers with the marketplace listing: state changes, lost instances and orphans."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from policy.state.lifecycle import LIFECYCLE, MARKET_STOPPED, advance
from policy.state.worker import ORPHAN_GROUP, MachineStats, Worker
from policy.state.worker_events import FoldResult, fold_error, fold_instance_gone
from policy.tuning import DEFAULT_TUNING
from stoker_wire.market import Instance
from stoker_wire.parsing.limits import excerpt
from stoker_wire.states import WorkerState as S

_LABEL_CHARS = 80
_MESSAGE_BYTES = 200
_WAITS_FOR_CONTAINER = frozenset({S.PENDING, S.CREATING, S.LOADING, S.STARTING})
_BOOT_ERRORS = (
    "error response from daemon",
    "manifest unknown",
    "pull access denied",
    "no such image",
    "oci runtime create failed",
    "no space left on device",
)
"""Texts of a host's status message that mean that the container does not start."""

_IMAGE_FAULTS = ("manifest unknown", "pull access denied", "no such image", "invalid reference format")
"""The image does not exist or may not be pulled, on any machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFleet:
    """The fleet after a listing."""

    workers: tuple[Worker, ...]
    orphans: tuple[Worker, ...]
    """Instances with the endpoint's label that belong to no worker, as workers in DESTROYING.

    Add them to the fleet.
    """
    gone: tuple[Worker, ...]
    """Workers whose instance no longer exists, in their last state."""
    learned: MachineStats
    lines: tuple[tuple[str, str], ...] = ()
    """What happened, each with the launch id of its worker; empty: of none."""

    @property
    def material(self) -> bool:
        """Whether a new plan could differ."""
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
) -> ListedFleet:
    """The fleet after a complete listing that was requested at `asked_at`.

    `label_prefix` is `stoker:<endpoint>:`; the rest of a label is the launch id. For a worker that changed after the
    request, only the price and machine id of the listing are used.

    `gone` are known instance ids that the marketplace reported as unknown in a query by id: only those are lost.
    `shown` are known instances that are missing in the list but exist. Other missing ids are undecided and kept. If
    the list lacks instances with the endpoint's label, it is incomplete and no worker without an instance id is
    removed.
    """
    instances = tuple(instances)
    ours = [each for each in instances if _ours(each, label_prefix)]
    by_id = {each.id: each for each in instances}
    # The first instance with a label belongs to the launch; a second one was rented twice.
    by_launch = {_launch(each, label_prefix): each for each in sorted(ours, key=lambda each: -each.id)}
    workers = tuple(workers)
    claimed: set[int] = set()
    kept: list[Worker] = []
    removed: list[Worker] = []
    lines: list[tuple[str, str]] = []
    missing_ids = [
        worker.instance_id
        for worker in workers
        if _is_missing(worker, asked_at, by_id, label_prefix, gone, shown)
    ]
    if missing_ids:
        lacks = (
            f"the marketplace's list lacks {len(missing_ids)} of {len(workers)} known instances"
            f" (first: {missing_ids[0]}) that a query by id did not report as gone; the workers are kept"
        )
        lines.append(("", lacks))
    for worker in workers:
        instance = (
            by_launch.get(worker.launch_id) if worker.instance_id is None else by_id.get(worker.instance_id)
        )
        if instance is None:
            denied = not missing_ids if worker.instance_id is None else worker.instance_id in gone
            folded = _not_listed(worker, asked_at, learned) if denied else FoldResult(worker, learned)
        else:
            claimed.add(instance.id)
            folded = _listed(worker, instance, now=now, asked_at=asked_at, learned=learned)
            folded = _with_label_checked(folded, instance, label_prefix)
        learned = folded.learned
        lines += [(worker.launch_id, line) for line in folded.lines]
        if folded.worker is None:
            removed.append(worker)
        else:
            kept.append(folded.worker)
    unclaimed = [each for each in ours if each.id not in claimed]
    orphans = _orphans(unclaimed, {worker.launch_id for worker in workers}, label_prefix, now)
    for orphan in orphans:
        said = f"instance {orphan.instance_id} ({orphan.launch_id}) belongs to no worker; releasing it"
        lines.append((orphan.launch_id, said))
    return ListedFleet(
        workers=tuple(kept), orphans=orphans, gone=tuple(removed), learned=learned, lines=tuple(lines)
    )


def _is_missing(
    worker: Worker,
    asked_at: float,
    by_id: Mapping[int, Instance],
    label_prefix: str,
    gone: Container[int],
    shown: Container[int],
) -> bool:
    """Whether the list should show the worker's instance and does not, although no query says that it is gone."""
    number = worker.instance_id
    if number is None or number in gone or worker.operation or _is_newly_created(worker, asked_at):
        return False
    return number not in by_id or (number in shown and _ours(by_id[number], label_prefix))


def _orphans(
    unclaimed: Iterable[Instance], known: set[str], label_prefix: str, now: float
) -> tuple[Worker, ...]:
    """Instances of no known worker, each as a worker with a launch id of its own."""
    orphans = []
    for instance in unclaimed:
        launch_id = _launch(instance, label_prefix)
        name = f"{launch_id}-{instance.id}" if launch_id in known or not launch_id else launch_id
        orphans.append(_orphan(instance, name, now))
        known.add(name)
    return tuple(orphans)


def _launch(instance: Instance, label_prefix: str) -> str:
    return (instance.label or "").removeprefix(label_prefix)


def _ours(instance: Instance, label_prefix: str) -> bool:
    return (instance.label or "").startswith(label_prefix)


def _with_label_checked(folded: FoldResult, instance: Instance, label_prefix: str) -> FoldResult:
    """Log once that an instance's label was edited. The worker is kept by its instance id."""
    if folded.worker is None:
        return folded
    edited = not _ours(instance, label_prefix)
    logged: tuple[str, ...] = ()
    if edited and not folded.worker.relabelled:
        label = (instance.label or "")[:_LABEL_CHARS]
        line = (
            f"instance {instance.id} has the label {label!r}, expected {label_prefix}…; it was edited outside"
        )
        logged = (f"{line}, the worker is kept by its id",)
    worker = folded.worker.replace(relabelled=edited)
    return FoldResult(worker, folded.learned, (*folded.lines, *logged))


def _is_newly_created(worker: Worker, asked_at: float) -> bool:
    rented_at = worker.since if worker.state is S.CREATING else worker.launched_at
    return asked_at < rented_at + DEFAULT_TUNING.create_grace_seconds


def _not_listed(worker: Worker, asked_at: float, learned: MachineStats) -> FoldResult:
    new = _is_newly_created(worker, asked_at)
    creating = worker.operation == "create" or (
        worker.instance_id is None and worker.state is not S.DESTROYING
    )
    under_way = worker.state is S.DESTROYING and (worker.operation == "destroy" or asked_at < worker.since)
    never_asked = (
        worker.state is S.DESTROYING and worker.instance_id is None and worker.retry_at <= worker.since
    )
    if creating or under_way or never_asked or (new and worker.state is not S.DESTROYING):
        return FoldResult(worker, learned)
    return fold_instance_gone(worker, "the market has no such instance any more (outbid or killed)", learned)


def _listed(
    worker: Worker, instance: Instance, *, now: float, asked_at: float, learned: MachineStats
) -> FoldResult:
    status = (instance.actual_status or "").lower()
    worker = worker.replace(
        instance_id=worker.instance_id or instance.id,
        machine_id=instance.machine_id or worker.machine_id,
        dollars_per_hour=instance.dph_total or worker.dollars_per_hour,
        storage_dollars_per_hour=instance.storage_total_cost or worker.storage_dollars_per_hour,
    )
    if asked_at <= worker.since or worker.operation:
        return FoldResult(worker, learned)
    # Stopped machines are listed with their former address.
    address = instance.address if status == "running" and instance.address else worker.address
    worker = worker.replace(market_status=status, address=address)
    if _is_boot_error(worker, instance):
        return _boot_error(worker, instance, now, learned)
    return _state_after(worker, instance, status, now, learned)


def _state_after(
    worker: Worker, instance: Instance, status: str, now: float, learned: MachineStats
) -> FoldResult:
    """The worker after the marketplace listed it with this status."""
    is_stopped = (
        status in MARKET_STOPPED and (instance.intended_status or "stopped").lower() in MARKET_STOPPED
    )
    exited = status == "exited" and not is_stopped
    status_text = instance.status_msg or f"the market says {status}"
    match worker.state:
        case S.PENDING | S.CREATING | S.LOADING | S.MODEL_LOADING if is_stopped:
            begun = worker.state in (S.LOADING, S.MODEL_LOADING)
            # Most likely outbid: an immediate start would be stopped again.
            given_up = worker.starts_given_up + begun
            what = "is stopped and was never loaded"
            return _moved(worker, S.CREATED, now, learned, what, starts_given_up=given_up)
        case S.PENDING | S.CREATING | S.LOADING | S.MODEL_LOADING if exited:
            return fold_error(worker, f"its container exited: {status_text}", now, learned)
        case S.PENDING | S.CREATING | S.LOADING if status == "running":
            return _moved(worker, S.MODEL_LOADING, now, learned, "runs and loads its model", error="")
        case S.PENDING | S.CREATING:
            return _moved(worker, S.LOADING, now, learned, "pulls its image")
        case S.STOPPING if status in MARKET_STOPPED:
            to = S.INACTIVE if worker.loaded_once else S.CREATED
            if worker.retry_at > worker.since:
                worker = worker.replace(error="")  # it told why the stop failed at first
            return _moved(worker, to, now, learned, "is stopped", retry_at=0.0, stop_accepted_at=0.0)
        case S.INACTIVE if status == "running":
            return _moved(worker, S.STARTING, now, learned, "was started by someone else")
        case S.CREATED if status == "running":
            return _moved(worker, S.MODEL_LOADING, now, learned, "was started by someone else")
        case S.READY if is_stopped:
            return _moved(worker, S.INACTIVE, now, learned, "was stopped by someone else")
        case S.READY if exited:
            return fold_error(worker, f"its container exited: {status_text}", now, learned)
        case S.READY if status == "offline" and worker.suspect_since is None:
            line = f"{worker.log_name}: its host is offline"
            return FoldResult(worker.replace(suspect_since=now), learned, (line,))
        case _:
            return FoldResult(worker, learned)


def _is_boot_error(worker: Worker, instance: Instance) -> bool:
    if worker.market_status in {"running", *MARKET_STOPPED} or worker.state not in _WAITS_FOR_CONTAINER:
        return False
    message = (instance.status_msg or "").lower()
    return any(text in message for text in _BOOT_ERRORS)


def _boot_error(worker: Worker, instance: Instance, now: float, learned: MachineStats) -> FoldResult:
    """Hosts repeat a failed pull by themselves, so the first message is only recorded."""
    message = f"its host says: {excerpt(instance.status_msg or '', _MESSAGE_BYTES)}"
    if worker.error == message and now - worker.since >= DEFAULT_TUNING.boot_error_seconds:
        everywhere = any(text in message.lower() for text in _IMAGE_FAULTS)
        return fold_error(worker, message, now, learned, everywhere=everywhere)
    if worker.error == message:
        return FoldResult(worker, learned)
    line = f"{worker.log_name} does not start; {message}"
    return FoldResult(worker.replace(error=message), learned, (line,))


def _moved(
    worker: Worker, to: S, now: float, learned: MachineStats, what: str, **changes: object
) -> FoldResult:
    if to not in LIFECYCLE[worker.state].moves:
        return FoldResult(worker, learned)
    line = f"{worker.log_name} {what}"
    return FoldResult(advance(worker, to, now, **changes), learned, (line,))


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
        ran_at_release=(instance.actual_status or "").lower() not in MARKET_STOPPED,
        error="belongs to no worker",
    )
