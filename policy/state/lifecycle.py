"""The worker lifecycle: one table of states and transitions. `docs/reference/lifecycle.md` is generated from it."""

from dataclasses import dataclass
from enum import StrEnum

from policy.state.worker import Worker
from stoker_wire.control import WorkerAction
from stoker_wire.states import GPU_BILLED
from stoker_wire.states import WorkerState as S


class Readiness(StrEnum):
    """The contribution of a state to the capacity."""

    HOT = "hot"
    """Serves requests."""
    BOOTING = "booting"
    """Becomes hot without another operation."""
    COLD = "cold"
    """Stopped with its disk; hot after a start."""
    BROKEN = "broken"
    DESTROYING = "destroying"
    """Being released."""


class InvalidTransition(ValueError):
    """A transition that the table does not allow."""


@dataclass(frozen=True, slots=True)
class Row:
    """One state: its readiness, and the transitions out of it with the event that causes each."""

    readiness: Readiness
    moves: dict[S, str]


_GONE = "released"
_LEAVES_BOOT = {
    S.STOPPING: "not wanted running",
    S.ERROR: "the container exited, or reports an error",
    S.DESTROYING: _GONE,
}

LIFECYCLE: dict[S, Row] = {
    S.PENDING: Row(
        Readiness.BOOTING,
        {
            S.CREATING: "the create call succeeded",
            S.LOADING: "listed as loading before the create call answered",
            S.MODEL_LOADING: "reports before the create call answered",
            S.CREATED: "listed as stopped",
            S.READY: "reports ready before the create call answered",
            S.ERROR: "reports an error",
            S.DESTROYING: "the create call's outcome is unknown, or it is not needed any more",
        },
    ),
    S.CREATING: Row(
        Readiness.BOOTING,
        {
            S.CREATED: "listed as stopped",
            S.LOADING: "the image is pulled",
            S.MODEL_LOADING: "the container runs",
            S.READY: "reports ready",
            S.STOPPING: "not wanted running",
            S.ERROR: "reports an error",
            S.DESTROYING: _GONE,
        },
    ),
    S.CREATED: Row(
        Readiness.COLD,
        {
            S.LOADING: "started for the first time",
            S.MODEL_LOADING: "the container runs",
            S.READY: "reports ready",
            S.ERROR: "reports an error",
            S.DESTROYING: _GONE,
        },
    ),
    S.LOADING: Row(
        Readiness.BOOTING,
        {
            S.CREATED: "listed as stopped",
            S.MODEL_LOADING: "the container runs",
            S.READY: "reports ready",
        }
        | _LEAVES_BOOT,
    ),
    S.MODEL_LOADING: Row(
        Readiness.BOOTING,
        {
            S.CREATED: "listed as stopped",
            S.READY: "benchmarked, reports ready",
        }
        | _LEAVES_BOOT,
    ),
    S.READY: Row(
        Readiness.HOT,
        {
            S.STOPPING: "drained, not wanted hot",
            S.INACTIVE: "stopped by someone else",
            S.STARTING: "its container restarted by itself",
            S.UPDATE_REBOOTING: "drained, the update was ordered",
            S.REBOOTING: "does not answer, a reboot was ordered",
            S.ERROR: "the container exited, or reports an error",
            S.DESTROYING: _GONE,
        },
    ),
    S.STOPPING: Row(
        Readiness.COLD,
        {
            S.INACTIVE: "listed as stopped",
            S.CREATED: "listed as stopped, never loaded",
            S.DESTROYING: _GONE,
        },
    ),
    S.INACTIVE: Row(
        Readiness.COLD,
        {S.STARTING: "a start was ordered, or someone else started it", S.DESTROYING: _GONE},
    ),
    S.STARTING: Row(
        Readiness.BOOTING,
        {
            S.READY: "reports ready",
            S.INACTIVE: "the start was refused",
            S.STOPPING: "the start was given up, or it is not wanted running",
            S.REBOOTING: "a reboot was ordered",
            S.ERROR: "the container exited, or reports an error",
            S.DESTROYING: _GONE,
        },
    ),
    S.UPDATE_READY: Row(
        Readiness.BOOTING,
        {S.UPDATE_REBOOTING: "the update was ordered", S.STOPPING: "not wanted running", S.DESTROYING: _GONE},
    ),
    S.UPDATE_REBOOTING: Row(
        Readiness.BOOTING,
        {
            S.UPDATE_STARTING: "the market accepted the update",
            S.UPDATE_READY: "the update was refused, it will be tried again",
            S.READY: "reports ready",
        }
        | _LEAVES_BOOT,
    ),
    S.UPDATE_STARTING: Row(
        Readiness.BOOTING,
        {S.READY: "reports ready"} | _LEAVES_BOOT,
    ),
    S.REBOOTING: Row(
        Readiness.BOOTING,
        {S.READY: "reports ready"} | _LEAVES_BOOT,
    ),
    S.ERROR: Row(
        Readiness.BROKEN,
        {
            S.REBOOTING: "a reboot was ordered",
            S.READY: "reports ready again",
            S.STARTING: "its container restarted by itself",
            S.STOPPING: "not wanted running",
            S.DESTROYING: _GONE,
        },
    ),
    S.DESTROYING: Row(Readiness.DESTROYING, {}),
}
"""A destroyed worker is removed once the marketplace no longer knows its instance."""

_FRESH_START: dict[str, object] = {
    "drain": None,
    "suspect_since": None,
    "load": 0.0,
    "in_flight": 0,
    "waiting": None,
    "tickets_open": 0,
}
_PROVEN: dict[str, object] = {"failures": 0, "starts_given_up": 0, "suspect_since": None}
_MAY_MOVE = frozenset(
    {S.STOPPING, S.INACTIVE, S.STARTING, S.REBOOTING, S.UPDATE_REBOOTING, S.UPDATE_STARTING, S.DESTROYING}
)
"""In these states the address is unknown: a restarted machine may get other ports."""
_ENDS_PROCESS = frozenset({S.STOPPING, S.INACTIVE, S.CREATED, S.REBOOTING, S.UPDATE_REBOOTING, S.DESTROYING})
"""Entering these states ends the worker process."""
_KEEPS_REQUESTS = frozenset({S.READY, S.ERROR, S.UPDATE_READY, S.DESTROYING})


_BOOT_BEGINS = (S.STARTING, S.REBOOTING, S.UPDATE_REBOOTING)
_BOOT_PHASES = (
    *_BOOT_BEGINS,
    S.CREATING,
    S.LOADING,
    S.MODEL_LOADING,
    S.UPDATE_STARTING,
    S.READY,
    S.ERROR,
)
"""States that are phases of a boot, with its ends."""
_BOOT_PHASES_MAX = 10
"""With its end. A thousand workers with 10 phases take 300 KB of the workflow's state."""

_HOT, _BOOTING, _COLD = (
    tuple(state for state, row in LIFECYCLE.items() if row.readiness is worth)
    for worth in (Readiness.HOT, Readiness.BOOTING, Readiness.COLD)
)
# Tuples compare by identity. Sets would hash the enum members in Python code, a hundred times per plan.


MARKET_STOPPED = frozenset({"stopped", "exited", "frozen"})
"""Marketplace statuses of a machine that was stopped: by an order, by its container's end, or by a higher bid."""
_MACHINE_NOT_RUNNING = MARKET_STOPPED | {"offline", "created", "scheduling"}
"""Marketplace statuses of machines that do not run. A machine without a status has reported its error, so it runs."""


def is_hot(worker: Worker) -> bool:
    """Loaded and running. Drain and suspicion also decide whether it gets requests."""
    return worker.state in _HOT


def is_booting(worker: Worker) -> bool:
    """Booting or starting."""
    return worker.state in _BOOTING


def is_cold(worker: Worker) -> bool:
    """Stopped or stopping, with the model on its disk."""
    return worker.loaded_once and worker.state in _COLD


def runs_or_will(worker: Worker) -> bool:
    """Whether it is billed, or will be without another operation."""
    return is_booting(worker) or worker.state in GPU_BILLED


def is_billed_until_gone(worker: Worker) -> bool:
    """Whether a stop or release was ordered while it was billed.

    Billing continues until the marketplace reports it done.
    """
    return worker.state in (S.STOPPING, S.DESTROYING) and worker.ran_at_release


def runs_in_error(worker: Worker) -> bool:
    """Whether it is broken and its machine is billed, as far as is known."""
    return worker.state is S.ERROR and worker.market_status.lower() not in _MACHINE_NOT_RUNNING


def counts_in_full(worker: Worker) -> bool:
    """Whether the budget counts its full price: it is billed now, or will be without another operation."""
    return (
        runs_or_will(worker)
        or is_billed_until_gone(worker)
        or runs_in_error(worker)
        or worker.still_reporting
    )


def advance(worker: Worker, to: S, now: float, **changes: object) -> Worker:
    """The worker in its next state, entered now. The same state keeps `since`.

    Its requests are cleared when it leaves service; its failure counts when it becomes ready.

    Raises:
        InvalidTransition: the table has no such transition.
    """
    if to is worker.state:
        return worker.replace(**changes) if changes else worker
    moves = LIFECYCLE[worker.state].moves
    if to not in moves:
        allowed = ", ".join(state.printed for state in moves) or "nothing: it is being released"
        raise InvalidTransition(
            f"worker {worker.launch_id} is {worker.state.printed} and cannot become {to.printed};"
            f" expected one of: {allowed}"
        )
    kept = _PROVEN if to is S.READY else {} if to in _KEEPS_REQUESTS else _FRESH_START
    moved: dict[str, object] = {"address": ""} if to in _MAY_MOVE else {}
    if to in _ENDS_PROCESS:
        moved["process"] = worker.process.with_end(now)
        if worker.asked is WorkerAction.REBOOT:
            moved["asked"] = None  # its next process is the restarted one
    if worker.still_reporting and to is not S.DESTROYING:
        moved["still_reporting"] = False
    if to in _BOOT_PHASES and (is_booting(worker) or to in _BOOTING):
        begins = to in _BOOT_BEGINS or worker.state is S.CREATED
        moved["boot"] = (*(() if begins else worker.boot[: _BOOT_PHASES_MAX - 1]), (to.value, round(now, 1)))
    if to is not S.ERROR:
        moved["error_everywhere"] = False
    if worker.state is S.CREATED and to in _BOOTING:
        moved["launched_at"] = now  # a first boot, with the deadline of a boot
    return worker.replace(**(kept | moved | {"state": to, "since": now} | changes))


def enter_phase(worker: Worker, phase: str, now: float) -> Worker:
    """The booting worker, which reports that it downloads, loads or benchmarks."""
    last = worker.boot[-1][0] if worker.boot else ""
    if phase in {"", last} or not is_booting(worker) or len(worker.boot) >= _BOOT_PHASES_MAX - 1:
        return worker
    return worker.replace(boot=(*worker.boot, (phase, round(now, 1))))
