"""The fleet model: what is recorded about each worker, and what a fleet can do.

Plain frozen records: the workflow keeps them as its state, the planner reads them, the simulator makes thousands.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from operator import attrgetter
from typing import Any, Self

from policy.state.incarnation import Process
from stoker_wire.states import GPU_BILLED, STORAGE_UNBILLED, WorkerState


class Goal(StrEnum):
    """What a draining worker becomes once it holds no request."""

    STOP = "stop"
    DESTROY = "destroy"
    UPDATE = "update"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """A worker takes no new request since `since`; once empty (or past `deadline`) it goes on to `goal`."""

    since: float
    deadline: float
    goal: Goal
    reason: str
    seen_at: float | None = None
    """Since when every live engine gives it out no more; None: not all of them have said so."""
    until_idle: bool = False
    """It only saves money: the requests that it holds end first, however long they run, and the deadline does not count."""


ORPHAN_GROUP = 0
"""The workergroup of an instance that carries the endpoint's name and that no worker stands for: no real one has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker as recorded by its endpoint's workflow. Times are Unix seconds, money is dollars per hour."""

    launch_id: str
    """Given by the planner before anything is rented; the instance's label ends with it."""
    workergroup_id: int
    revision: int
    """The workergroup's revision that it was launched from."""
    kind: str
    """Machine kind, e.g. `1x RTX 4090`."""
    state: WorkerState
    since: float
    """When it entered the state."""
    launched_at: float
    """When its first boot began: with its launch, or, if it was stopped before it had loaded, when it was started again."""
    offer_id: int = 0
    machine_id: int = 0
    instance_id: int | None = None
    dollars_per_hour: float = 0.0
    """While the GPU is billed, storage included."""
    storage_dollars_per_hour: float = 0.0
    offered_dollars_per_hour: float = 0.0
    """What the offer said that it was rented from, storage included; 0: not known."""
    perf: float = 0.0
    """Measured load/s; 0 until its benchmark has run."""
    perf_estimate: float = 0.0
    """What it was recruited for, load/s; 0: nothing was known."""
    url: str = ""
    address: str = ""
    """Where the marketplace says that it is, `host:port,port…`; empty while it has not said since its last start."""
    official: bool = False
    """It is the official package's worker, which checks nothing but the signature of its launch's key."""
    load: float = 0.0
    """Load it holds: in flight and routed but not yet seen by it."""
    in_flight: int = 0
    """Requests it holds, by its own report."""
    tickets_open: int = 0
    """Route answers naming it that it has not seen yet."""
    reported_at: float | None = None
    """When the engine last heard of it."""
    process: Process = Process()
    """The process that its reports come from: load, perf, error and suspicion are all about this one."""
    loaded_once: bool = False
    """Whether it ever was ready: only then it is cold, not merely stopped, when inactive."""
    drain: Drain | None = None
    error: str = ""
    suspect_since: float | None = None
    """Clients or the engine say that it does not answer, since then."""
    operation: str = ""
    """The market operation under way for it (`create`, `start`, `stop`, `reboot`, `destroy`, `update`), or ``."""
    retry_at: float = 0.0
    """After a failed operation: not before then again."""
    stop_accepted_at: float = 0.0
    """While it is stopping: when the marketplace last said yes to that; 0: it has not yet."""
    failures: int = 0
    """Operations that failed in a row."""
    starts_given_up: int = 0
    """Starts and boots that the market accepted and did not carry out, since it was last ready."""
    reboots: int = 0
    """Reboots to recover it since it last ran well for long."""
    market_status: str = ""
    """The marketplace's last word on it (`actual_status`)."""
    relabelled: bool = False
    """Its instance carries another label than the launch's: someone edited it. It is known by its id alone."""
    left_running: bool = False
    """It ran, or was about to, when its release was ordered: the marketplace bills it until it is gone."""
    heard_running: bool = False
    """It reports although it was told to stop or to go: the marketplace bills it."""

    def __repr__(self) -> str:
        price = f"${self.dollars_per_hour:.2f}/h"
        return f"<Worker {self.launch_id} {self.state.printed} since {self.since:.0f}, {self.kind}, {price}>"

    def replace(self, **changes: Any) -> Self:
        """The same worker with these fields changed; the very same when they are so already, as most news says."""
        for name, value in changes.items():
            known = getattr(self, name)
            if known is not value and (known != value or type(known) is not type(value)):
                break
        else:
            return self
        # what dataclasses.replace does, at a quarter of its price: every report of every worker comes through here
        changed = object.__new__(type(self))
        for store, value in zip(_STORES, _ALL(self), strict=True):
            store(changed, value)
        for name, value in changes.items():
            _STORE[name](changed, value)
        return changed

    @property
    def burn_dollars_per_hour(self) -> float:
        """What it costs per hour in the state that it is in."""
        if self.state in GPU_BILLED or self.heard_running:
            return self.dollars_per_hour
        return 0.0 if self.state in STORAGE_UNBILLED else self.storage_dollars_per_hour


_NAMES = tuple(each.name for each in fields(Worker))
_STORE: dict[str, Callable[[Worker, Any], None]] = {name: getattr(Worker, name).__set__ for name in _NAMES}
_STORES = tuple(_STORE.values())
_ALL = attrgetter(*_NAMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRecord:
    """What was learned about a machine kind in one workergroup."""

    workergroup_id: int
    kind: str
    perf: float = 0.0
    """Mean measured perf of its workers, load/s; 0 while none has loaded."""
    dollars_per_hour: float = 0.0
    """Mean price paid."""
    samples: int = 0
    boot_seconds: float = 0.0
    """Create call to ready, smoothed."""
    start_seconds: float = 0.0
    """Start call to ready, smoothed."""
    boots: int = 0
    starts: int = 0
    failures: int = 0
    """Launches of this kind that never became ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFailure:
    """A machine that let us down. It is not tried again before `until`."""

    machine_id: int
    until: float
    reason: str
    workergroup_id: int = 0
    failed_at: float = 0.0
    """When a launch failed on it; 0: none did, it is let be for another reason."""
    revision: int = 1
    """The workergroup's revision that ran on it."""
    cause: str = ""
    """The failure without what varies between hosts (`policy.state.host_failures.cause_of`); empty: not comparable."""
    after_ready: bool = False
    """Whether the worker had been ready before: then a request may have caused it."""
    times: int = 1
    """How often in a row it failed so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineStats:
    """What an endpoint learned, carried through every restart."""

    kinds: tuple[KindRecord, ...] = ()
    failed_hosts: tuple[HostFailure, ...] = ()

    def kind(self, workergroup_id: int, kind: str) -> KindRecord | None:
        """The record of this kind in this workergroup, if any was made."""
        for record in self.kinds:
            if record.workergroup_id == workergroup_id and record.kind == kind:
                return record
        return None
