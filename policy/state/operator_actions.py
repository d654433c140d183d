"""What an operator asks of a single worker. The planner carries it out; it says nothing about the worker's host."""

from policy.state.lifecycle import is_hot
from policy.state.worker import Goal, Worker
from stoker_wire.control import WorkerAction
from stoker_wire.states import WorkerState as S

GOALS = {
    WorkerAction.DRAIN: Goal.STOP,
    WorkerAction.REBOOT: Goal.REBOOT,
    WorkerAction.DESTROY: Goal.DESTROY,
}


def refusal(worker: Worker, action: WorkerAction) -> str:
    """Why the action is not possible now, and what is; empty: it is possible, or already under way."""
    named = f"worker {worker.launch_id} is {worker.state.words}"
    if worker.state is S.DESTROYING and action is not WorkerAction.DESTROY:
        return f"{named}: it is released already"
    if action is WorkerAction.REBOOT and worker.state not in {S.READY, S.ERROR, S.REBOOTING}:
        return f"{named}, only one that is ready or failed can be rebooted; destroy it to have another machine rented"
    return ""


def ask(worker: Worker, action: WorkerAction) -> Worker:
    """The worker with the action asked for. The same worker if it is under way already."""
    if action is WorkerAction.RESUME:
        return worker if worker.asked is None else worker.replace(asked=None, drain=None)
    if (action, worker.state) in {(WorkerAction.REBOOT, S.REBOOTING), (WorkerAction.DESTROY, S.DESTROYING)}:
        return worker
    return worker.replace(asked=action)


def is_held(worker: Worker) -> bool:
    """Whether an operator took the worker out of service: it is no capacity, hot or cold."""
    return worker.asked in {WorkerAction.DRAIN, WorkerAction.DESTROY}


def begun_drain(worker: Worker) -> bool:
    """Whether a hot worker drains already for what was asked."""
    drain = worker.drain
    if worker.asked is None or drain is None or drain.until_idle:
        return False
    return is_hot(worker) and drain.goal is GOALS.get(worker.asked)
