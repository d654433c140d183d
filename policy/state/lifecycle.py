"""The life of a worker, as one table; the documentation's diagram is drawn from it."""

from dataclasses import dataclass
from enum import StrEnum

from policy.state.worker import Worker
from stoker_wire.states import GPU_BILLED, STORAGE_UNBILLED
from stoker_wire.states import WorkerState as S


class Readiness(StrEnum):
    """What a state is worth to the endpoint."""

    HOT = "hot"
    """Takes requests."""
    BOOTING = "booting"
    """Will be hot without further doing."""
    COLD = "cold"
    """On disk: hot after a start."""
    BROKEN = "broken"
    LEAVING = "leaving"


class InvalidTransition(ValueError):
    """A move that the table does not have: what was recorded and what was heard contradict each other."""


@dataclass(frozen=True, slots=True)
class Row:
    """One state: what it is worth, and the moves out of it with the event that makes each."""

    standing: Readiness
    moves: dict[S, str]


_GONE = "released"

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
            S.DESTROYING: "the create call's outcome is unknown, or it is not wanted any more",
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
            S.STOPPING: "not wanted running",
            S.ERROR: "the container exited, or reports an error",
            S.DESTROYING: _GONE,
        },
    ),
    S.MODEL_LOADING: Row(
        Readiness.BOOTING,
        {
            S.CREATED: "listed as stopped",
            S.READY: "benchmarked, reports ready",
            S.STOPPING: "not wanted running",
            S.ERROR: "the container exited, or reports an error",
            S.DESTROYING: _GONE,
        },
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
        {
            S.STARTING: "a start was ordered, or someone else started it",
            S.DESTROYING: _GONE,
        },
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
            S.STOPPING: "not wanted running",
            S.ERROR: "the container exited, or reports an error",
            S.DESTROYING: _GONE,
        },
    ),
    S.UPDATE_STARTING: Row(
        Readiness.BOOTING,
        {
            S.READY: "reports ready",
            S.STOPPING: "not wanted running",
            S.ERROR: "the container exited, or reports an error",
            S.DESTROYING: _GONE,
        },
    ),
    S.REBOOTING: Row(
        Readiness.BOOTING,
        {
            S.READY: "reports ready",
            S.STOPPING: "not wanted running",
            S.ERROR: "the container exited, or reports an error",
            S.DESTROYING: _GONE,
        },
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
    S.DESTROYING: Row(Readiness.LEAVING, {}),
}
"""A destroyed worker leaves the table when the marketplace denies its instance."""

_FRESH_START: dict[str, object] = {
    "drain": None,
    "suspect_since": None,
    "load": 0.0,
    "in_flight": 0,
    "tickets_open": 0,
}
_PROVEN: dict[str, object] = {"failures": 0, "starts_given_up": 0, "suspect_since": None}
_MAY_MOVE = frozenset(
    {S.STOPPING, S.INACTIVE, S.STARTING, S.REBOOTING, S.UPDATE_REBOOTING, S.UPDATE_STARTING, S.DESTROYING}
)
"""A machine that starts anew may get other ports: where it was before says nothing."""
_ENDS_PROCESS = frozenset({S.STOPPING, S.INACTIVE, S.CREATED, S.REBOOTING, S.UPDATE_REBOOTING, S.DESTROYING})
"""The process that was heard until then ends: its reports say nothing of the next one."""
_KEEPS_REQUESTS = frozenset({S.READY, S.ERROR, S.UPDATE_READY, S.DESTROYING})


_HOT, _BOOTING, _COLD = (
    tuple(state for state, row in LIFECYCLE.items() if row.standing is worth)
    for worth in (Readiness.HOT, Readiness.BOOTING, Readiness.COLD)
)
# tuples: members are found by identity, where a set would hash an enum, in Python, a hundred times per plan


def standing(worker: Worker) -> Readiness:
    """What the worker's state is worth."""
    return LIFECYCLE[worker.state].standing


_MACHINE_STANDS = frozenset({"stopped", "exited", "frozen", "offline", "created", "scheduling"})
"""The marketplace's words for a machine that does not run. One that it has not spoken of has reported its error, so it does."""


def is_hot(worker: Worker) -> bool:
    """Loaded and running; whether it is given requests also depends on drain and silence."""
    return worker.state in _HOT


def is_booting(worker: Worker) -> bool:
    """On its way to hot."""
    return worker.state in _BOOTING


def is_cold(worker: Worker) -> bool:
    """Stopped or stopping, with the model on its disk."""
    return worker.loaded_once and worker.state in _COLD


def exists(worker: Worker) -> bool:
    """Whether it counts against max_workers: everything does until the marketplace says that it is gone."""
    return worker.state in LIFECYCLE


def runs_or_will(worker: Worker) -> bool:
    """Whether it is billed, or will be without further doing."""
    return is_booting(worker) or worker.state in GPU_BILLED


def is_billed_until_gone(worker: Worker) -> bool:
    """Whether it was told to stop or to go while it was billed: it still is, until the marketplace says otherwise."""
    return worker.state is S.STOPPING or (worker.state is S.DESTROYING and worker.left_running)


def runs_in_error(worker: Worker) -> bool:
    """Whether it is broken and its machine runs, for all that is known: the marketplace bills it."""
    return worker.state is S.ERROR and worker.market_status.lower() not in _MACHINE_STANDS


def counts_in_full(worker: Worker) -> bool:
    """Whether the budget counts its whole price: it is billed, will be without further doing, or is until it is gone."""
    return (
        runs_or_will(worker) or is_billed_until_gone(worker) or runs_in_error(worker) or worker.heard_running
    )


def advance(worker: Worker, to: S, now: float, **changes: object) -> Worker:
    """The worker in its next state since now; staying where it is keeps `since`.

    What it held is forgotten when it leaves service, what it failed when it is ready again.

    Raises:
        InvalidTransition: the table has no such move.
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
        moved["process"] = worker.process.ordered_to_end(now)
    if worker.heard_running and to is not S.DESTROYING:
        moved["heard_running"] = False
    if worker.state is S.CREATED and to in _BOOTING:
        moved["launched_at"] = now  # its boot begins anew, and has the time of a boot
    return worker.replace(**(kept | moved | {"state": to, "since": now} | changes))


def table() -> str:
    """The lifecycle as a Markdown table."""
    lines = ["| state | worth | GPU billed | storage billed | next states |", "|---|---|---|---|---|"]
    for state, row in LIFECYCLE.items():
        moves = "; ".join(f"{to.printed}: {event}" for to, event in row.moves.items()) or "gone"
        billed = "yes" if state in GPU_BILLED else "no"
        storage = "no" if state in STORAGE_UNBILLED else "yes"
        lines.append(f"| {state.printed} | {row.standing} | {billed} | {storage} | {moves} |")
    return "\n".join(lines) + "\n"


def diagram() -> str:
    """The lifecycle as a Mermaid state diagram, the moves to DESTROYING left out: every state has one."""
    lines = ["stateDiagram-v2", "    [*] --> PENDING: an offer was chosen"]
    for state, row in LIFECYCLE.items():
        for to, event in row.moves.items():
            if to is not S.DESTROYING:
                lines.append(f"    {state.printed} --> {to.printed}: {event}")
    lines.append("    DESTROYING --> [*]: no longer listed")
    return "\n".join(lines) + "\n"
