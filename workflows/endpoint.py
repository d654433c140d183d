"""The life of one endpoint: observe, plan, act, wait. Level-triggered, so that a crash at any point loses nothing."""

import asyncio
from collections.abc import Sequence
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError, CancelledError, FailureError

from activities.planner import Decided, plan
from controller import answers
from controller.whatif.advice import Advice
from policy.load import history as load_windows
from policy.state.observation import LAUNCH_IDS_PER_PLAN, Observation
from policy.state.plan import Plan
from policy.state.worker import Worker
from stoker_wire import control
from stoker_wire.control import EndpointSpec
from stoker_wire.messages import DecisionLine
from stoker_wire.parsing.limits import STATE_BYTES_MAX
from workflows import message_handlers, message_validation, options, query_results, whatif_handlers
from workflows.carryover import read_handed_on
from workflows.drain_handshake import note_drains_seen, recheck_at
from workflows.operations import Operations
from workflows.publish import Publisher
from workflows.state import LAUNCH_ID_CHARS, EndpointStateBook
from workflows.wake_timer import WakeTimer

FALLBACK_SECONDS = 3600.0
"""Without any wish of the planner's: news wakes the loop, this is for what brings no news."""
REPLAN_SECONDS = 10.0
"""After a planner that failed."""
CONFIRM_SECONDS = 30.0
"""After a listing that could not be made, or that still found something, of an endpoint that is deleted."""
HAND_OVER_SECONDS = 20.0
"""How long a continue-as-new waits for what is under way; the next run asks again for what is left."""
MOVE_SECONDS_MIN = 10.0
"""Between two moves to another build: a deployment that is switched to and fro must not make an endpoint spin."""
CANCELLED_EVENTS_MAX = 40_000
"""A cancelled run does not continue as new below this length: the request is not handed on to the next run, which would end
as completed. Temporal terminates at 51,200 events; at 30 s between two listings this length takes more than a day."""
_FAULT_CHARS = 300


@workflow.defn(name=control.WORKFLOW_TYPE)
class EndpointWorkflow:
    """One endpoint, from its first worker to the marketplace's word that the last one is gone.

    Where workers are versioned, a run stays on the build that it began on, and moves to another by continue-as-new.
    """

    @workflow.init
    def __init__(self, sent: Any) -> None:
        self._unusable = ""
        """What is wrong with the input; `run` says so and ends, signals that came before it find an empty endpoint."""
        unknown: tuple[str, ...] = ()
        try:
            if workflow.info().continued_run_id is None:
                spec = message_validation.spec(sent)
            else:
                spec, unknown = read_handed_on(EndpointSpec.model_validate, sent)
        except message_validation.InvalidMessage as fault:
            self._unusable, spec = str(fault), EndpointSpec(endpoint_name="unusable", endpoint_id=1)
        self._book = EndpointStateBook(spec)
        if unknown := (*unknown, *self._book.unknown):
            words = f"left out, for this build does not know it: {', '.join(unknown)}"
            self._book.log.note(workflow.time(), "config", words, subject="state")
        if self._book.record.left_out:
            words = (
                f"left out of a state over {STATE_BYTES_MAX} bytes: {', '.join(self._book.record.left_out)}"
            )
            self._book.log.note(workflow.time(), "config", words, subject="state")
            self._book.record.left_out = ()
        if self._book.forgotten:
            words = f"could not be read, and begins anew: {', '.join(self._book.forgotten)}"
            self._book.log.note(workflow.time(), "config", words, subject="state")
        self._operations = Operations(self._book, self._news)
        self._publisher = Publisher(self._book)
        self._alarm = WakeTimer(self._ring)
        self._due = "the workflow starts"
        """Why a plan is due; empty when none is."""
        self._stirred = False
        """Something came that needs no plan but may have to be seen to."""
        self._history_events_max = spec.history_events_max

    @workflow.run
    async def run(self, sent: Any) -> answers.Deleted:
        """An `EndpointSpec`. Runs until the endpoint is deleted.

        A cancel request deletes the endpoint, too: the workflow ends as cancelled after the last worker is gone.
        """
        if self._unusable:
            raise ApplicationError(self._unusable, type="invalid_spec", non_retryable=True)
        # Cancellation reaches only the task of `run`. The loop has a task of its own, so it finishes the deletion.
        life = asyncio.create_task(self._live(), name="life")
        while not life.done():
            try:
                await workflow.wait_condition(life.done)
            except asyncio.CancelledError:
                if not _is_cancelled():  # the worker evicts this workflow from its cache
                    raise
                self._delete(
                    "cancel was requested: every worker is released, then the workflow ends as cancelled"
                )
        left = life.result()
        if _is_cancelled():
            raise CancelledError(f"cancelled: endpoint {left.endpoint_name} was deleted")
        return left

    async def _live(self) -> answers.Deleted:
        """The main loop, until the endpoint is deleted."""
        self._operations.resume()
        while not self._is_gone():
            if self._due:
                await self._plan()
            self._publisher.publish(workflow.time())
            if self._should_continue_as_new():
                await self._hand_over()
            self._alarm.set(self._book.record.replan_at)
            await workflow.wait_condition(lambda: bool(self._due) or self._stirred or self._should_move())
            self._stirred = False
            self._operations.raise_fault()
        self._publisher.publish(workflow.time())
        await workflow.wait_condition(workflow.all_handlers_finished)
        return query_results.deleted(self._book, workflow.time())

    # the loop's parts

    async def _plan(self) -> None:
        now, why = workflow.time(), self._due
        self._due = ""
        self._book.count_dollars(now)
        note_drains_seen(self._book, now)
        observation = self._book.observation(
            now,
            launch_ids=tuple(_launch_id() for _ in range(LAUNCH_IDS_PER_PLAN)),
            listing_in_progress=self._operations.listing_in_progress,
            searching=self._operations.searching,
        )
        self._book.record.load_at_plan = (
            load_windows.rate(self._book.record.load, message_handlers.RATE_SECONDS) or 0.0
        )
        try:
            decided = await workflow.execute_local_activity(
                plan, args=[observation, self._advice()], **options.plan_options()
            )
        except CancelledError:
            raise
        except FailureError as error:  # a local activity's own fault comes as it is, not in an ActivityError
            self._note_planner(str(error.cause or error), why, now)
            self._book.record.replan_at = workflow.time() + REPLAN_SECONDS
            return
        if decided.fault:
            self._note_planner(decided.fault, why, now)
        self._adopt(decided, observation, now)

    def _note_planner(self, fault: str, why: str, now: float) -> None:
        self._book.log.note(now, "fail", f"planner: {fault}"[:_FAULT_CHARS], subject=why)

    def _adopt(self, decided: Decided, observation: Observation, now: float) -> None:
        made: Plan = decided.plan
        for sentence in decided.refused:
            self._book.log.note(now, "fail", f"refused: {sentence}", subject="plan")
        self._book.adopt(made, now)
        whatif_handlers.adopt(self._book, decided.advice, now)
        self._operations.carry_out(made, observation.workers)
        due = [self._book.record.replan_at or now + FALLBACK_SECONDS, recheck_at(self._book, now)]
        self._book.record.replan_at = min(at for at in due if at is not None)
        if self._book.record.deleting:
            self._confirm_empty(workflow.time())

    def _advice(self) -> Advice | None:
        return None if self._book.record.deleting else self._book.record.advice

    async def _hand_over(self) -> None:
        """Continues as new with everything that is known; what is under way is asked for again, idempotently."""
        try:
            await workflow.wait_condition(
                lambda: not self._operations.under_way and workflow.all_handlers_finished(),
                timeout=HAND_OVER_SECONDS,
                timeout_summary="operations finish before continue-as-new",
            )
        except TimeoutError:
            workflow.logger.info("hand_over_with_operations_under_way")
        self._operations.raise_fault()
        if not self._should_continue_as_new():
            return  # a cancel request came meanwhile
        self._book.count_dollars(workflow.time())
        moves = workflow.info().is_target_worker_deployment_version_changed()
        if moves:
            self._book.record.moved_at = workflow.time()
        workflow.continue_as_new(
            self._book.spec(self._history_events_max),
            memo=self._publisher.memo,
            search_attributes=workflow.info().typed_search_attributes,
            initial_versioning_behavior=workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE
            if moves
            else None,
        )

    def _should_continue_as_new(self) -> bool:
        info = workflow.info()
        most = self._history_events_max
        if _is_cancelled() and info.get_current_history_length() < CANCELLED_EVENTS_MAX:
            return False
        return (
            info.is_continue_as_new_suggested()
            or (most is not None and info.get_current_history_length() >= most)
            or self._should_move()
        )

    def _should_move(self) -> bool:
        """Whether the deployment's current build is another than ours. Never so where workers are not versioned."""
        if not workflow.info().is_target_worker_deployment_version_changed():
            return False
        return workflow.time() - self._book.record.moved_at >= MOVE_SECONDS_MIN

    def _confirm_empty(self, now: float) -> None:
        """A deleted endpoint without workers lists once more, late enough for the marketplace to have caught up."""
        record = self._book.record
        if record.workers or self._operations.changing:
            record.emptied_at = None
            return
        if record.emptied_at is None:
            record.emptied_at = now
        due = record.emptied_at + options.LIST_LAG_SECONDS
        if now >= due:
            self._operations.look("the endpoint is deleted: nothing may be left")
            due = now + CONFIRM_SECONDS
        record.replan_at = min(record.replan_at or due, due)

    def _is_gone(self) -> bool:
        record = self._book.record
        if not record.deleting or record.workers or self._operations.under_way or record.emptied_at is None:
            return False
        return self._operations.found_nothing_at >= record.emptied_at + options.LIST_LAG_SECONDS

    def _ring(self) -> None:
        self._book.record.replan_at = None
        self._due = self._due or "the time has come"

    def _news(self, reason: str) -> None:
        self._stirred = True
        self._due = self._due or reason

    def _refuse(self, message: str, fault: message_validation.InvalidMessage) -> None:
        self._book.log.note(workflow.time(), "config", f"refused: {fault}", subject=message)
        self._stirred = True

    def _now(self) -> float:
        """The time, with the dollars counted up to it: states are about to change."""
        now = workflow.time()
        self._book.count_dollars(now)
        return now

    # signals: what cannot be used is refused in the decision log, and never fails the workflow

    @workflow.signal(name=control.REPORT_METRICS, description="what an engine saw since its last batch")
    def report_metrics(self, *sent: Any) -> None:
        """A `MetricsBatch`."""
        try:
            read = message_validation.metrics(message_validation.only(sent))
        except message_validation.InvalidMessage as fault:
            return self._refuse(control.REPORT_METRICS, fault)
        now = self._now()
        reason = message_handlers.metrics(self._book, read, now)
        if note_drains_seen(self._book, now):
            reason = reason or "every engine has seen the drain"
        return self._news(reason)

    @workflow.signal(name=control.UPDATE_CONFIG, description="change config fields")
    def update_config(self, *sent: Any) -> None:
        """An `EndpointPatch`."""
        try:
            patch = message_validation.patch(message_validation.only(sent), self._book.record.config)
        except message_validation.InvalidMessage as fault:
            return self._refuse(control.UPDATE_CONFIG, fault)
        return self._news(message_handlers.config(self._book, patch, self._now()))

    @workflow.signal(name=control.SET_WORKERGROUP, description="add or change a workergroup")
    def set_workergroup(self, *sent: Any) -> None:
        """A `Workergroup`."""
        try:
            group = message_validation.workergroup(
                message_validation.only(sent), self._book.record.workergroups
            )
        except message_validation.InvalidMessage as fault:
            return self._refuse(control.SET_WORKERGROUP, fault)
        return self._news(message_handlers.set_workergroup(self._book, group, self._now()))

    @workflow.signal(name=control.REMOVE_WORKERGROUP, description="remove a workergroup")
    def remove_workergroup(self, *sent: Any) -> None:
        """A workergroup's id."""
        try:
            group_id = message_validation.workergroup_id(message_validation.only(sent))
        except message_validation.InvalidMessage as fault:
            return self._refuse(control.REMOVE_WORKERGROUP, fault)
        return self._news(message_handlers.remove_workergroup(self._book, group_id, self._now()))

    @workflow.signal(name=control.UPDATE_WORKERS, description="roll a workergroup's workers over")
    def update_workers(self, *sent: Any) -> None:
        """A workergroup's id."""
        try:
            group_id = message_validation.workergroup_id(message_validation.only(sent))
        except message_validation.InvalidMessage as fault:
            return self._refuse(control.UPDATE_WORKERS, fault)
        return self._news(message_handlers.update_workers(self._book, group_id, self._now()))

    @workflow.signal(name=control.DELETE, description="destroy every worker, then end")
    def delete(self, *sent: Any) -> None:
        """Nothing to say."""
        if sent:
            fault = message_validation.InvalidMessage(
                f"delete takes nothing, {len(sent)} values came; send it without"
            )
            return self._refuse(control.DELETE, fault)
        return self._delete("the endpoint is deleted: every worker is released")

    def _delete(self, said: str) -> None:
        if not self._book.record.deleting:
            now = self._now()
            self._book.record.deleting = True
            self._book.log.note(now, "config", said)
        self._news("the endpoint is deleted")

    @workflow.signal(dynamic=True, description="none of the above: refused")
    def _unknown_signal(self, name: str, _: Sequence[RawValue]) -> None:
        """A name that nobody here knows: said in the decision log, where whoever misspelt it will look."""
        self._refuse(
            name[:80],
            message_validation.InvalidMessage(
                "there is no such signal; see the reference for those there are"
            ),
        )

    # updates: the same, for callers who want the error back; a refused one leaves no trace in the history

    @workflow.update(name=control.UPDATE_CONFIG, description="change config fields")
    def change_config(self, sent: Any) -> dict[str, Any]:
        """Answers the whole config after the change."""
        self._news(message_handlers.config(self._book, self._patch(sent), self._now()))
        return self._book.record.config.model_dump(mode="json")

    @change_config.validator
    def _check_change_config(self, sent: Any) -> None:
        self._check_alive()
        self._patch(sent)

    @workflow.update(name=control.SET_WORKERGROUP, description="add or change a workergroup")
    def put_workergroup(self, sent: Any) -> dict[str, Any]:
        """Answers the workergroup as it is now, with its revision."""
        group = self._group(sent)
        self._news(message_handlers.set_workergroup(self._book, group, self._now()))
        stored = self._book.workergroup(group.id) or group
        return stored.model_dump(mode="json")

    @put_workergroup.validator
    def _check_put_workergroup(self, sent: Any) -> None:
        self._check_alive()
        self._group(sent)

    @workflow.update(name=control.REMOVE_WORKERGROUP, description="remove a workergroup")
    def drop_workergroup(self, sent: Any) -> None:
        """Its workers are released by the next plans."""
        self._news(message_handlers.remove_workergroup(self._book, self._group_id(sent), self._now()))

    @drop_workergroup.validator
    def _check_drop_workergroup(self, sent: Any) -> None:
        self._check_group_exists(sent)

    @workflow.update(name=control.UPDATE_WORKERS, description="roll a workergroup's workers over")
    def roll_workers(self, sent: Any) -> None:
        """Its revision goes up, so that every worker of it is due."""
        self._news(message_handlers.update_workers(self._book, self._group_id(sent), self._now()))

    @roll_workers.validator
    def _check_roll_workers(self, sent: Any) -> None:
        self._check_group_exists(sent)

    @workflow.update(name=control.CANCEL_UPDATE, description="keep the workers that are not updated yet")
    def cancel_update(self, sent: Any) -> None:
        """A worker whose update has begun finishes it."""
        self._news(message_handlers.cancel_update(self._book, self._group_id(sent), self._now()))

    @cancel_update.validator
    def _check_cancel_update(self, sent: Any) -> None:
        self._check_group_exists(sent)

    @workflow.update(name=control.ROTATE_KEY, description="make the endpoint key invalid, a new one valid")
    def rotate_key(self, overlap_seconds: Any = None) -> int:
        """Answers the version of the key that is valid now; the one before is accepted for so long besides."""
        record = self._book.record
        record.key_version += 1
        overlap = message_validation.overlap_seconds(overlap_seconds)
        record.key_overlap_until = self._now() + overlap if overlap else 0.0
        said = f"endpoint key rotated, version {record.key_version}"
        if overlap:
            said += f"; the key before is accepted for another {overlap:.0f} s"
        self._book.log.note(self._now(), "config", said)
        self._stirred = True
        return self._book.record.key_version

    @rotate_key.validator
    def _check_rotate_key(self, overlap_seconds: Any = None) -> None:
        self._check_alive()
        try:
            message_validation.overlap_seconds(overlap_seconds)
        except message_validation.InvalidMessage as fault:
            raise ApplicationError(str(fault), type="invalid_args") from None

    @workflow.update(name=control.ADVISE, description="plan a second config beside the live one, or stop it")
    def advise(self, sent: Any = None) -> bool:
        """Answers whether a second config is planned from now on."""
        asked = self._advise(sent)
        self._news(whatif_handlers.advise(self._book, asked, self._now()))
        return asked is not None

    @advise.validator
    def _check_advise(self, sent: Any = None) -> None:
        self._check_alive()
        self._advise(sent)

    @workflow.update(name=control.UNBLOCK_HOSTS, description="let hosts that failed be rented again")
    def unblock_hosts(self, sent: Any = None) -> list[int]:
        """Answers the machine ids that were blocked and are not any more."""
        return list(self._unblock(self._machines(sent)))

    @unblock_hosts.validator
    def _check_unblock_hosts(self, sent: Any = None) -> None:
        self._check_alive()
        self._machines(sent)

    def _unblock(self, machines: tuple[int, ...]) -> tuple[int, ...]:
        freed = message_handlers.unblock_hosts(self._book, machines, self._now())
        if freed:
            self._news(f"{len(freed)} hosts may be rented again")
        return freed

    def _machines(self, sent: Any) -> tuple[int, ...]:
        try:
            return message_validation.machine_ids(sent)
        except message_validation.InvalidMessage as fault:
            raise ApplicationError(str(fault), type="invalid_args") from None

    def _check_alive(self) -> None:
        if self._book.record.deleting:
            raise ApplicationError(f"endpoint {self._book.name} is being deleted", type="deleting")

    def _check_group_exists(self, sent: Any) -> None:
        self._check_alive()
        if self._book.workergroup(self._group_id(sent)) is None:
            raise ApplicationError(f"there is no workergroup {sent}", type="no_such_workergroup")

    def _patch(self, sent: Any) -> Any:
        try:
            return message_validation.patch(sent, self._book.record.config)
        except message_validation.InvalidMessage as fault:
            raise ApplicationError(str(fault), type="invalid_config") from None

    def _advise(self, sent: Any) -> Any:
        try:
            return message_validation.advise(sent, self._book.record.config)
        except message_validation.InvalidMessage as fault:
            raise ApplicationError(str(fault), type="invalid_config") from None

    def _group(self, sent: Any) -> Any:
        try:
            return message_validation.workergroup(sent, self._book.record.workergroups)
        except message_validation.InvalidMessage as fault:
            raise ApplicationError(str(fault), type="invalid_workergroup") from None

    def _group_id(self, sent: Any) -> int:
        try:
            return message_validation.workergroup_id(sent)
        except message_validation.InvalidMessage as fault:
            raise ApplicationError(str(fault), type="invalid_workergroup") from None

    # queries

    @workflow.query(name=control.QUERY_STATUS, description="what it has, what it wants, what it waits for")
    def status(self) -> answers.EndpointStatus:
        """The first thing to ask."""
        level = load_windows.rate(self._book.record.load, message_handlers.RATE_SECONDS) or 0.0
        return query_results.status(self._book, self._operations.under_way, level)

    @workflow.query(name=control.QUERY_WORKERS, description="every worker as recorded")
    def workers(self) -> list[Worker]:
        """In the order of their launches."""
        return query_results.workers(self._book)

    @workflow.query(name=control.QUERY_DECISIONS, description="the last decisions and why, oldest first")
    def decisions(self, tail: int = 50) -> list[DecisionLine]:
        """At most `tail` lines."""
        return self._book.log.tail(tail)

    @workflow.query(name=control.QUERY_HOSTS, description="hosts that are not rented for a while, and why")
    def hosts(self) -> answers.Hosts:
        """Blocked hosts, hosts that are not to blame, and paused workergroups."""
        return query_results.hosts(self._book, workflow.time())

    @workflow.query(name=control.QUERY_COSTS, description="dollars spent, and dollars per hour now")
    def costs(self) -> answers.Costs:
        """Counted up to the last event."""
        return query_results.costs(self._book)

    @workflow.query(
        name=control.QUERY_ADVICE, description="a second config beside the live one, and what differs"
    )
    def advice(self) -> answers.AdviceView:
        """Nothing of it is carried out."""
        return query_results.advice(self._book, workflow.time())

    @workflow.query(name=control.QUERY_LOAD, description="arrivals at several resolutions, and the backlog")
    def load(self) -> load_windows.LoadHistory:
        """As told by the engines."""
        return self._book.record.load

    @workflow.query(name=control.QUERY_WORKERGROUPS, description="the workergroups")
    def workergroups(self) -> list[dict[str, Any]]:
        """As JSON."""
        return [group.model_dump(mode="json") for group in self._book.record.workergroups]


def _launch_id() -> str:
    return workflow.uuid4().hex[:LAUNCH_ID_CHARS]


def _is_cancelled() -> bool:
    """Whether this run was asked to cancel."""
    return workflow.cancellation_reason() is not None
