"""The workflow of one endpoint: passes messages to its controller, runs the planner, carries out effects."""

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError, CancelledError, FailureError

from activities.messages import label_prefix
from activities.planner import plan
from controller import config_events, query_results
from controller.controller import EndpointController
from controller.previous_run import read_carried_state
from controller.query_results import Deleted
from controller.state import LAUNCH_ID_CHARS, EndpointStateBook
from policy.state.observation import LAUNCH_IDS_PER_PLAN
from stoker_wire import control
from stoker_wire.control import EndpointSpec
from workflows import continue_as_new, message_validation, options
from workflows.effect_runner import Effects
from workflows.message_handlers import MessageHandlers
from workflows.publish import Publisher
from workflows.wake_timer import WakeTimer

HAND_OVER_SECONDS = 20.0
"""How long a continue-as-new waits for effects in flight; the next run requests the rest again."""
MOVE_SECONDS_MIN = 10.0
"""Between two moves to another build. Without it, a deployment that is switched back and forth makes endpoints spin."""
CANCELLED_EVENTS_MAX = 40_000
"""A cancelled run does not continue as new below this length, because the next run would not know of the cancellation
and would end as completed. Temporal terminates at 51,200 events; at 30 s between two listings this length takes more
than a day."""


@workflow.defn(name=control.WORKFLOW_TYPE)
class EndpointWorkflow(MessageHandlers):
    """One endpoint, from its first worker until the marketplace shows that the last one is gone."""

    @workflow.init
    def __init__(self, sent: Any) -> None:
        self._unusable = ""
        """Error of the input: `run` fails with it. Earlier signals are applied to an empty endpoint."""
        unknown: tuple[str, ...] = ()
        try:
            if workflow.info().continued_run_id is None:
                spec = message_validation.spec(sent)
            else:
                spec, unknown = read_carried_state(EndpointSpec.model_validate, sent)
        except message_validation.InvalidMessage as fault:
            self._unusable, spec = str(fault), EndpointSpec(endpoint_name="unusable", endpoint_id=1)
        state = EndpointStateBook(spec)
        state.note_what_is_missing(unknown, workflow.time())
        self._controller = EndpointController(state, label_prefix=label_prefix(state.name))
        self._effects = Effects(self._controller, self._note_change)
        self._publisher = Publisher(state)
        self._timer = WakeTimer(lambda: self._controller.on_timer(workflow.time()))
        self._changed = False
        """The state changed, so the main loop has to run."""
        self._history_events_max = spec.history_events_max

    @workflow.run
    async def run(self, sent: Any) -> Deleted:
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
                why = "cancel was requested: every worker is released, then the workflow ends as cancelled"
                self._controller.on_change(config_events.delete, why, workflow.time())
        left = life.result()
        if _is_cancelled():
            raise CancelledError(f"cancelled: endpoint {left.endpoint_name} was deleted")
        return left

    async def _live(self) -> Deleted:
        controller = self._controller
        self._effects.start(controller.resume(workflow.time()))
        while not controller.is_gone:
            if controller.due:
                await self._plan()
            self._publisher.publish(workflow.time())
            if self._should_continue_as_new():
                await self._hand_over()
            self._timer.set(controller.state.record.replan_at)
            await workflow.wait_condition(
                lambda: bool(controller.due) or self._changed or self._should_move()
            )
            self._changed = False
            self._effects.raise_fault()
        self._publisher.publish(workflow.time())
        await workflow.wait_condition(workflow.all_handlers_finished)
        return query_results.deleted(controller.state, workflow.time())

    async def _plan(self) -> None:
        """A local activity makes the plan, so that it stands in the history with its reasons."""
        controller = self._controller
        random = workflow.random()
        launch_ids = tuple(
            f"{random.getrandbits(4 * LAUNCH_ID_CHARS):0{LAUNCH_ID_CHARS}x}"
            for _ in range(LAUNCH_IDS_PER_PLAN)
        )
        observation = controller.observe(launch_ids, workflow.time())
        try:
            decision = await workflow.execute_local_activity(
                plan, args=[observation, controller.advice], **options.plan_options()
            )
        except CancelledError:
            raise
        except FailureError as error:  # a local activity's own fault is not wrapped in an ActivityError
            controller.on_plan_failed(str(error.cause or error), observation, workflow.time())
        else:
            self._effects.start(controller.on_plan(decision, observation, workflow.time()))

    async def _hand_over(self) -> None:
        """Continues as new with the whole state; effects in flight are asked for again, idempotently."""
        controller = self._controller
        try:
            await workflow.wait_condition(
                lambda: not controller.in_flight and workflow.all_handlers_finished(),
                timeout=HAND_OVER_SECONDS,
                timeout_summary="operations finish before continue-as-new",
            )
        except TimeoutError:
            workflow.logger.info("hand_over_with_operations_under_way")
        self._effects.raise_fault()
        if not self._should_continue_as_new():
            return  # a cancel request came meanwhile
        controller.state.count_dollars(workflow.time())
        if continue_as_new.has_other_build():
            controller.state.record.moved_at = workflow.time()
        workflow.continue_as_new(
            controller.state.spec(self._history_events_max),
            memo=self._publisher.memo,
            search_attributes=workflow.info().typed_search_attributes,
            initial_versioning_behavior=continue_as_new.next_build(),
        )

    def _should_continue_as_new(self) -> bool:
        if _is_cancelled() and workflow.info().get_current_history_length() < CANCELLED_EVENTS_MAX:
            return False
        return continue_as_new.is_long(self._history_events_max) or self._should_move()

    def _should_move(self) -> bool:
        moved_at = self._controller.state.record.moved_at
        return continue_as_new.has_other_build() and workflow.time() - moved_at >= MOVE_SECONDS_MIN

    def _note_change(self) -> None:
        self._changed = True


def _is_cancelled() -> bool:
    """Whether this run was asked to cancel."""
    return workflow.cancellation_reason() is not None
