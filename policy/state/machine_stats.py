"""Statistics of machine kinds and failed hosts: smoothed values, bounded in number."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from policy.state.worker import HostBoot, HostFailure, KindRecord, MachineStats, Worker
from policy.tuning import DEFAULT_TUNING
from policy.wording import duration

_KINDS_MAX = 100
_HOSTS_MAX = 100


def learn_perf(learned: MachineStats, worker: Worker, perf: float) -> MachineStats:
    """Record a worker's benchmark."""
    record = _record(learned, worker)
    samples = min(record.samples, DEFAULT_TUNING.perf_samples_max - 1)
    return _with(
        learned,
        replace(
            record,
            perf=(record.perf * samples + perf) / (samples + 1),
            dollars_per_hour=(record.dollars_per_hour * samples + worker.dollars_per_hour) / (samples + 1),
            samples=record.samples + 1,
        ),
    )


def cap_perf(learned: MachineStats, worker: Worker, perf: float) -> MachineStats:
    """Lower a kind's mean perf to `perf` if a false report has raised it above."""
    record = learned.kind(worker.workergroup_id, worker.kind)
    if record is None or record.perf <= perf:
        return learned
    return _with(learned, replace(record, perf=perf))


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """A boot from the create call to ready, and its parts, seconds."""

    seconds: float
    pull: float | None = None
    """Until the container ran; None: not seen."""
    download: float = 0.0
    """For the weights; 0: none, or not known."""

    def __str__(self) -> str:
        if self.pull is None:
            return duration(self.seconds)
        load = max(0.0, self.seconds - self.pull - self.download)
        download = f", download {self.download:.0f} s" if self.download >= 0.5 else ""
        return f"{duration(self.seconds)} (image {self.pull:.0f} s{download}, load {load:.0f} s)"


def learn_boot(learned: MachineStats, worker: Worker, boot: Boot) -> MachineStats:
    """Record a first boot, for the machine kind and for the host."""
    record = _record(learned, worker)
    smoothed = replace(
        record,
        boot_seconds=_smooth(record.boot_seconds, boot.seconds, record.boots),
        download_seconds=_smooth(record.download_seconds, boot.download, record.boots),
        boots=record.boots + 1,
    )
    if boot.pull is not None:
        smoothed = replace(smoothed, pull_seconds=_smooth(record.pull_seconds, boot.pull, record.boots))
    return replace(_with(learned, smoothed), hosts=_with_host(learned, worker, boot.seconds))


def _with_host(learned: MachineStats, worker: Worker, seconds: float) -> tuple[HostBoot, ...]:
    if not worker.machine_id:
        return learned.hosts
    known = learned.host(worker.workergroup_id, worker.machine_id)
    boots = known.boots if known is not None else 0
    record = HostBoot(
        workergroup_id=worker.workergroup_id,
        machine_id=worker.machine_id,
        boot_seconds=_smooth(known.boot_seconds if known is not None else 0.0, seconds, boots),
        boots=boots + 1,
    )
    return (*(each for each in learned.hosts if each is not known), record)[-_HOSTS_MAX:]


def learn_start(learned: MachineStats, worker: Worker, seconds: float) -> MachineStats:
    """Record the time from the start call of a cold worker to ready."""
    record = _record(learned, worker)
    smoothed = _smooth(record.start_seconds, seconds, record.starts)
    return _with(learned, replace(record, start_seconds=smoothed, starts=record.starts + 1))


def learn_failure(learned: MachineStats, worker: Worker) -> MachineStats:
    """Record a launch that never became ready."""
    record = _record(learned, worker)
    return _with(learned, replace(record, failures=record.failures + 1))


def remember_hosts(learned: MachineStats, failures: Iterable[HostFailure], now: float) -> MachineStats:
    """Add failed hosts; expired ones are removed, and each host keeps its newest failure."""
    by_machine: dict[int, HostFailure] = {}
    for each in (*learned.failed_hosts, *failures):
        if each.until > now:
            by_machine[each.machine_id] = _after(by_machine.get(each.machine_id), each)
    newest = sorted(by_machine.values(), key=lambda each: each.until)[-_HOSTS_MAX:]
    return replace(learned, failed_hosts=tuple(newest))


def _after(before: HostFailure | None, new: HostFailure) -> HostFailure:
    """The record of a host after a new failure."""
    if before is None or before == new:
        return new
    if not new.failed_at and before.failed_at and before.until >= new.until:
        return before  # an offer that is gone does not replace a failure
    same = (before.cause, before.revision, before.workergroup_id) == (
        new.cause,
        new.revision,
        new.workergroup_id,
    )
    if not same or not new.cause or new.failed_at <= before.failed_at:
        return new
    return replace(new, times=before.times + 1)


def _smooth(old: float, new: float, count: int) -> float:
    return new if count == 0 else old + DEFAULT_TUNING.boot_smoothing * (new - old)


def _record(learned: MachineStats, worker: Worker) -> KindRecord:
    known = learned.kind(worker.workergroup_id, worker.kind)
    return known or KindRecord(workergroup_id=worker.workergroup_id, kind=worker.kind)


def _with(learned: MachineStats, record: KindRecord) -> MachineStats:
    others = [
        each
        for each in learned.kinds
        if (each.workergroup_id, each.kind) != (record.workergroup_id, record.kind)
    ]
    return replace(learned, kinds=tuple([*others, record][-_KINDS_MAX:]))
