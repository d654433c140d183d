"""The records of workers, machine kinds and failed hosts: part of the workflow's state, read by the planner."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from operator import attrgetter
from typing import Any, Self

from policy.state.incarnation import Process
from stoker_wire.control import WorkerAction
from stoker_wire.states import GPU_BILLED, STORAGE_UNBILLED, WorkerState


class Goal(StrEnum):
    """What happens to a draining worker once it holds no request."""

    STOP = "stop"
    DESTROY = "destroy"
    UPDATE = "update"
    REBOOT = "reboot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """A worker gets no new request since `since`. Once it is empty or past `deadline`, `goal` follows."""

    since: float
    deadline: float
    goal: Goal
    reason: str
    seen_at: float | None = None
    """Since when no live engine routes requests to it; None: not all engines have confirmed the drain."""
    until_idle: bool = False
    """The drain only saves money, so it waits for the held requests without a deadline."""


ORPHAN_GROUP = 0
"""Workergroup id of orphans: instances with the endpoint's label that belong to no known worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker as recorded by its endpoint's workflow. Times are Unix seconds, prices dollars per hour."""

    launch_id: str
    """Assigned by the planner before the instance is rented; the instance's label ends with it."""
    workergroup_id: int
    revision: int
    """The revision of its workergroup at launch or at its last update."""
    kind: str
    """Machine kind, e.g. `1x RTX 4090`."""
    state: WorkerState
    since: float
    """When it entered this state."""
    launched_at: float
    """When its first boot began: at its launch, or at its next start if it was stopped before it had loaded."""
    offer_id: int = 0
    machine_id: int = 0
    instance_id: int | None = None
    dollars_per_hour: float = 0.0
    """Price while the GPU is billed, storage included."""
    storage_dollars_per_hour: float = 0.0
    offered_dollars_per_hour: float = 0.0
    """Price of the offer it was rented from, storage included; 0: unknown."""
    perf: float = 0.0
    """Measured perf, load/s; 0 before its benchmark."""
    provisional: bool = False
    """Its perf is its own estimate, which no benchmark has confirmed: no sample and no bound for others."""
    perf_estimate: float = 0.0
    """Estimated perf at recruiting, load/s; 0: unknown."""
    url: str = ""
    address: str = ""
    """Its address from the marketplace, `host:port,port…`; empty until it is known after a start."""
    official: bool = False
    """It runs the official package's worker, which checks only the signature by its launch key."""
    load: float = 0.0
    """Load in flight, and load routed to it that it has not received yet."""
    in_flight: int = 0
    """Requests it holds, from its own report."""
    waiting: int | None = None
    """Of these, requests beyond what it serves at its full speed; None, all but one: it did not say how many."""
    tickets_open: int = 0
    """Tickets issued for it that it has not received yet."""
    reported_at: float | None = None
    """When an engine last received a report of it."""
    process: Process = Process()
    """The worker process that reports. Load, perf, error and suspicion refer to it."""
    loaded_once: bool = False
    """Whether it was ever ready. Only then is the model on its disk, so that it counts as cold when stopped."""
    drain: Drain | None = None
    asked: WorkerAction | None = None
    """What an operator asked of it and is not carried out yet; a drain stays here until the worker is resumed."""
    error: str = ""
    error_everywhere: bool = False
    """Whether the error would occur on every machine."""
    boot: tuple[tuple[str, float], ...] = ()
    """When each phase of its last boot began: states, and the phases that the worker itself reports."""
    suspect_since: float | None = None
    """Since when clients or the engine report that it does not answer."""
    operation: str = ""
    """The running marketplace operation: `create`, `start`, `stop`, `reboot`, `destroy`, `update`, or empty."""
    retry_at: float = 0.0
    """After a failed operation: no retry before this time."""
    stop_accepted_at: float = 0.0
    """While it is stopping: when the marketplace last accepted the stop; 0: not yet."""
    failures: int = 0
    """Consecutive failed operations."""
    starts_given_up: int = 0
    """Starts and boots since it was last ready that the marketplace accepted but did not carry out."""
    reboots: int = 0
    """Recovery reboots, reset after a long time in service."""
    market_status: str = ""
    """The latest `actual_status` from the marketplace."""
    relabelled: bool = False
    """Its instance's label was edited by a user. The worker is then identified by instance id only."""
    ran_at_release: bool = False
    """It ran or booted when its stop or release was ordered, so it is billed until that is done."""
    still_reporting: bool = False
    """It still reports after a stop or release was ordered, so it is billed."""

    def __repr__(self) -> str:
        price = f"${self.dollars_per_hour:.2f}/h"
        return f"<Worker {self.launch_id} {self.state.printed} since {self.since:.0f}, {self.kind}, {price}>"

    def replace(self, **changes: Any) -> Self:
        """A copy with these fields changed; the same object if they have these values already."""
        for name, value in changes.items():
            known = getattr(self, name)
            if known is not value and (known != value or type(known) is not type(value)):
                break
        else:
            return self
        # Four times as fast as dataclasses.replace. Every report of every worker is processed here.
        changed = object.__new__(type(self))
        for store, value in zip(_STORES, _ALL(self), strict=True):
            store(changed, value)
        for name, value in changes.items():
            _STORE[name](changed, value)
        return changed

    @property
    def log_name(self) -> str:
        """`7fcbb2 (1x RTX 4090)`."""
        return f"{self.launch_id[:6]} ({self.kind})"

    @property
    def burn_dollars_per_hour(self) -> float:
        """Current cost per hour, by its state."""
        if self.state in GPU_BILLED or self.still_reporting:
            return self.dollars_per_hour
        return 0.0 if self.state in STORAGE_UNBILLED else self.storage_dollars_per_hour


_NAMES = tuple(each.name for each in fields(Worker))
_STORE: dict[str, Callable[[Worker, Any], None]] = {name: getattr(Worker, name).__set__ for name in _NAMES}
_STORES = tuple(_STORE.values())
_ALL = attrgetter(*_NAMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRecord:
    """Statistics of a machine kind in one workergroup."""

    workergroup_id: int
    kind: str
    perf: float = 0.0
    """Mean measured perf of its workers, load/s; 0: none was measured."""
    dollars_per_hour: float = 0.0
    """Mean price paid."""
    samples: int = 0
    boot_seconds: float = 0.0
    """Time from the create call to ready, smoothed."""
    pull_seconds: float = 0.0
    """Part of it until the container ran, smoothed; 0: never seen."""
    download_seconds: float = 0.0
    """Part of it for the download of the weights, smoothed; 0: none, or not known."""
    start_seconds: float = 0.0
    """Time from the start call to ready, smoothed."""
    boots: int = 0
    starts: int = 0
    failures: int = 0
    """Launches that never became ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFailure:
    """A host that is not rented again before `until`."""

    machine_id: int
    until: float
    reason: str
    workergroup_id: int = 0
    failed_at: float = 0.0
    """When a launch failed on it; 0: it is blocked for another reason."""
    revision: int = 1
    """The revision of the workergroup that failed on it."""
    cause: str = ""
    """The normalised error (`policy.state.host_failures.cause_of`); empty: not comparable with other hosts."""
    after_ready: bool = False
    """Whether the worker had been ready before: a request may then be the cause."""
    times: int = 1
    """Number of consecutive failures with this cause."""
    everywhere: bool = False
    """No other machine can help: the template, the model or a secret has to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostBoot:
    """The boots of one host for one workergroup: its network and disk, and what earlier boots left on them."""

    workergroup_id: int
    machine_id: int
    boot_seconds: float
    """Time from the create call to ready, smoothed."""
    boots: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineStats:
    """Statistics of machine kinds and hosts, and failed hosts, kept for the life of the endpoint."""

    kinds: tuple[KindRecord, ...] = ()
    hosts: tuple[HostBoot, ...] = ()
    """The latest boots last."""
    failed_hosts: tuple[HostFailure, ...] = ()

    def kind(self, workergroup_id: int, kind: str) -> KindRecord | None:
        """The record of this kind in this workergroup, if there is one."""
        for record in self.kinds:
            if record.workergroup_id == workergroup_id and record.kind == kind:
                return record
        return None

    def host(self, workergroup_id: int, machine_id: int) -> HostBoot | None:
        """The boots of this host for this workergroup, if there were any."""
        for record in self.hosts:
            if record.workergroup_id == workergroup_id and record.machine_id == machine_id:
                return record
        return None
