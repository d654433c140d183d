"""The signals, updates and queries of an endpoint's workflow.

A signal that cannot be used leaves a line in the decision log; an update answers with the fault and leaves no trace in
the history. Both read and apply a message in the same way, by the table `MESSAGES`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from controller import config_events, key_events, metrics_events, query_results
from controller.controller import EndpointController
from controller.state import EndpointStateBook
from controller.whatif import advice_events
from policy.load.history import LoadHistory
from policy.state.worker import Worker
from stoker_wire import control
from stoker_wire.messages import DecisionLine
from stoker_wire.workergroup import Workergroup
from workflows import message_validation as valid
from workflows.message_validation import InvalidMessage


@dataclass(frozen=True, slots=True)
class Message:
    """How one kind of message is read and applied."""

    read: Callable[[Any, EndpointStateBook], Any]
    """Raises InvalidMessage."""
    change: Callable[[EndpointStateBook, Any, float], str]
    """For `EndpointController.on_change`."""
    answer: Callable[[EndpointStateBook, Any], Any] = lambda *_: None
    """The answer of an update, after the change."""


def _workergroup(book: EndpointStateBook, group: Workergroup) -> dict[str, Any]:
    return (book.workergroup(group.id) or group).model_dump(mode="json")


MESSAGES: dict[str, Message] = {
    control.REPORT_METRICS: Message(valid.metrics, metrics_events.receive),
    control.UPDATE_CONFIG: Message(
        valid.patch, config_events.config, lambda book, _: book.record.config.model_dump(mode="json")
    ),
    control.SET_WORKERGROUP: Message(valid.workergroup, config_events.set_workergroup, _workergroup),
    control.REMOVE_WORKERGROUP: Message(valid.existing_workergroup, config_events.remove_workergroup),
    control.UPDATE_WORKERS: Message(valid.existing_workergroup, config_events.update_workers),
    control.CANCEL_UPDATE: Message(valid.existing_workergroup, config_events.cancel_update),
    control.CHANGE_WORKER: Message(valid.worker_change, config_events.change_worker),
    control.UNBLOCK_HOSTS: Message(
        valid.failed_hosts, config_events.unblock_hosts, lambda _, freed: list(freed)
    ),
    control.ROTATE_KEY: Message(
        valid.overlap_seconds, config_events.rotate_key, lambda book, _: book.record.key_version
    ),
    control.EDIT_KEYS: Message(valid.key_edit, key_events.edit),
    control.ADVISE: Message(valid.advise, advice_events.advise, lambda _, asked: asked is not None),
    control.LOOK_NOW: Message(valid.nothing, config_events.look_now),
    control.DELETE: Message(
        valid.nothing,
        lambda book, _, now: config_events.delete(
            book, "the endpoint is deleted: every worker is released", now
        ),
    ),
}


def _signal(name: str, description: str) -> Callable[..., None]:
    """A signal of this name. It takes any number of values: a wrong number would fail the workflow task."""

    def handle(self: Any, *sent: Any) -> None:
        self._signalled(name, sent)

    handle.__name__ = f"signal_{name}"
    return workflow.signal(name=name, description=description)(handle)


def _update(name: str, description: str, answer: Any = None) -> Callable[..., Any]:
    """An update of this name, with its validator. `answer` is the type of its answer."""

    def handle(self: Any, sent: Any = None) -> Any:
        return self._updated(name, sent)

    def check(self: Any, sent: Any = None) -> None:
        self._check(name, sent)

    handle.__name__, handle.__annotations__["return"] = f"update_{name}", answer
    update = workflow.update(name=name, description=description)(handle)
    update.validator(check)
    return update


class MessageHandlers:
    """Hands messages to the controller. `_changed` is set after each, for the main loop to look at."""

    _controller: EndpointController
    _changed: bool

    @property
    def _state(self) -> EndpointStateBook:
        return self._controller.state

    def _signalled(self, name: str, sent: tuple[Any, ...]) -> None:
        self._changed = True
        try:
            read = MESSAGES[name].read(valid.only(sent), self._state)
        except InvalidMessage as fault:
            self._refuse(name, str(fault))
        else:
            self._controller.on_change(MESSAGES[name].change, read, workflow.time())

    def _updated(self, name: str, sent: Any) -> Any:
        self._changed = True
        read = self._read(name, sent)
        self._controller.on_change(MESSAGES[name].change, read, workflow.time())
        return MESSAGES[name].answer(self._state, read)

    def _check(self, name: str, sent: Any) -> None:
        if self._state.record.deleting:
            raise ApplicationError(f"endpoint {self._state.name} is being deleted", type="deleting")
        self._read(name, sent)

    def _read(self, name: str, sent: Any) -> Any:
        try:
            return MESSAGES[name].read(sent, self._state)
        except InvalidMessage as fault:
            raise ApplicationError(str(fault), type=fault.code) from None

    def _refuse(self, name: str, reason: str) -> None:
        self._state.log.note(workflow.time(), "config", f"refused: {reason}", subject=name)

    # signals

    _signal_metrics = _signal(control.REPORT_METRICS, "what an engine saw since its last batch")
    _signal_config = _signal(control.UPDATE_CONFIG, "change config fields")
    _signal_workergroup = _signal(control.SET_WORKERGROUP, "add or change a workergroup")
    _signal_removal = _signal(control.REMOVE_WORKERGROUP, "remove a workergroup")
    _signal_update = _signal(control.UPDATE_WORKERS, "roll a workergroup's workers over")
    _signal_look = _signal(control.LOOK_NOW, "list the instances at once: the marketplace told of a change")
    _signal_delete = _signal(control.DELETE, "destroy every worker, then end")

    @workflow.signal(dynamic=True, description="none of the above: refused")
    def _signal_unknown(self, name: str, _: Sequence[RawValue]) -> None:
        self._changed = True
        self._refuse(name[:80], "there is no such signal; see the reference for those there are")

    # updates; the last argument is the type of the answer

    _update_config = _update(control.UPDATE_CONFIG, "change config fields", dict[str, Any])
    _update_workergroup = _update(control.SET_WORKERGROUP, "add or change a workergroup", dict[str, Any])
    _update_removal = _update(control.REMOVE_WORKERGROUP, "remove a workergroup")
    _update_workers = _update(control.UPDATE_WORKERS, "roll a workergroup's workers over")
    _update_cancel = _update(control.CANCEL_UPDATE, "keep the workers that are not updated yet")
    _update_key = _update(control.ROTATE_KEY, "make the endpoint key invalid, a new one valid", int)
    _update_keys = _update(control.EDIT_KEYS, "create, change or revoke a named key")
    _update_advice = _update(control.ADVISE, "plan a second config beside the live one, or stop it", bool)
    _update_hosts = _update(control.UNBLOCK_HOSTS, "let hosts that failed be rented again", list[int])
    _update_worker = _update(control.CHANGE_WORKER, "drain, resume, reboot or destroy one worker")

    # queries

    @workflow.query(name=control.QUERY_STATUS, description="what it has, what it wants, what it waits for")
    def _status(self) -> query_results.EndpointStatus:
        return query_results.status(self._state, tuple(self._controller.in_flight))

    @workflow.query(name=control.QUERY_WORKERS, description="every worker as recorded")
    def _workers(self) -> list[Worker]:
        return list(self._state.record.workers.values())

    @workflow.query(name=control.QUERY_DECISIONS, description="the last decisions and why, oldest first")
    def _decisions(self, tail: int = 50) -> list[DecisionLine]:
        return self._state.log.tail(tail)

    @workflow.query(name=control.QUERY_HOSTS, description="hosts that are not rented for a while, and why")
    def _hosts(self) -> query_results.Hosts:
        return query_results.hosts(self._state, workflow.time())

    @workflow.query(name=control.QUERY_COSTS, description="dollars spent, and dollars per hour now")
    def _costs(self) -> query_results.Costs:
        return query_results.costs(self._state)

    @workflow.query(
        name=control.QUERY_ADVICE, description="a second config beside the live one, and what differs"
    )
    def _advice(self) -> query_results.AdviceView:
        return query_results.advice(self._state, workflow.time())

    @workflow.query(name=control.QUERY_LOAD, description="arrivals at several resolutions, and the backlog")
    def _load(self) -> LoadHistory:
        return self._state.record.load

    @workflow.query(name=control.QUERY_WORKERGROUPS, description="the workergroups")
    def _workergroups(self) -> list[dict[str, Any]]:
        return [group.model_dump(mode="json") for group in self._state.record.workergroups]
