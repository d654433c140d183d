"""Bodies about workergroups and workers, where no wire type describes them."""

from typing import Literal

from engine.openapi.common import KEY, Keyed, NamedEndpoint, optional
from stoker_wire.control import WorkerAction
from stoker_wire.http.openapi import Said
from stoker_wire.worker_status import GpuStatus
from stoker_wire.workergroup import Workergroup

NewWorkergroup = optional(
    "NewWorkergroup",
    Workergroup,
    without=["id"],
    endpoint_id=(int | None, None),
    endpoint_name=(str | None, None),
    **KEY,
)


WorkergroupChange = optional("WorkergroupChange", Workergroup, without=["id"], **KEY)


class NamedWorker(NamedEndpoint):
    """A worker of an endpoint, by the id of its instance or by its launch id."""

    worker: int | str


class WorkerChange(NamedEndpoint):
    """An action on a worker, which is given by the id of its instance or the beginning of its launch id."""

    worker: int | str
    action: WorkerAction


class NamedWorkergroup(Keyed):
    """A workergroup by `id`."""

    id: int
    tail: int | None = None


class RollingUpdate(Keyed):
    """The workergroup whose rolling update starts or is cancelled."""

    workergroup_id: int
    cancel_update: bool | None = None


class WorkergroupRecord(Workergroup):
    """A workergroup in the official format."""

    endpoint_id: int
    endpoint_name: str
    user_id: int
    created_at: float
    broken: str = ""
    """Why its endpoint does not answer; the other fields are unknown then."""


class Workergroups(Said):
    """The account's workergroups."""

    success: Literal[True]
    results: list[WorkergroupRecord]


class WorkergroupShown(Said):
    """One workergroup."""

    success: Literal[True]
    result: WorkergroupRecord


class WorkergroupMade(Said):
    """The new workergroup's id, and a warning if no offer matches its search now."""

    success: Literal[True]
    id: int
    warning: str | None = None


class NoWorkers(Said):
    """The official reply for a missing endpoint or workergroup."""

    success: bool
    code: str
    error: str
    error_msg: str
    msg: str


class WorkerRow(Said):
    """One worker. Unknown values are 0, never null."""

    id: int
    status: str
    cur_load: float
    new_load: float
    cur_load_rolling_avg: float
    cur_perf: float
    perf: float
    measured_perf: float
    dlperf: float
    reliability: float
    reqs_working: int
    disk_usage: float
    loaded_at: float
    started_at: float
    gpu_name: str
    kind: str
    dph_total: float
    url: str
    address: str
    official: bool
    version: str
    """Of its PyWorker, by its report."""
    workergroup_id: int
    endpoint_id: int
    launch_id: str
    draining: bool
    held: bool
    """An operator drained it: it takes no requests until it is resumed."""
    suspect: bool
    update_pending: bool
    queued: int
    tickets_open: int
    last_report_s: float
    """Seconds since its last report; -1: no report yet."""
    error_msg: str
    phase: str
    """`download`, `load` or `benchmark` while it boots; empty: unknown, or ready."""
    gpus: list[GpuStatus]
    """From its last report; empty: none is known."""


class BootPhase(Said):
    """One phase of a boot."""

    phase: str
    """A state of the worker, or `download`, `load` or `benchmark`; `idle` and `error` end a boot."""
    at: float
    """When it began, Unix seconds."""
    seconds: float


class WorkerDetails(WorkerRow):
    """One worker as its endpoint's workflow records it."""

    machine_id: int
    reboots: int
    asked: str
    """An action that an operator ordered and that is not carried out yet; empty: none."""
    boot: list[BootPhase]
    """The phases of its last boot, in order."""


class WorkerShown(Said):
    """One worker."""

    success: Literal[True]
    worker: WorkerDetails


class UpdateBegun(Said):
    """Number of workers that will be updated."""

    success: Literal[True]
    workers_to_update: int


class WorkerChanged(Said):
    """The action that was ordered for the worker. The decision log tells when it is carried out."""

    success: Literal[True]
    launch_id: str
    action: WorkerAction


class UpdateCancelled(Said):
    """Workers that were not updated yet stay as they are."""

    success: Literal[True]
    cancelled: Literal[True]


class WorkerLog(Said):
    """The last lines of a worker's machine."""

    success: Literal[True]
    live: bool
    """False: saved before the instance was rebooted or destroyed."""
    at: float
    """When the lines were read, Unix seconds."""
    log: str
